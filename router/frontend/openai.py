"""vLLM's OpenAI layer, one set of serving objects per model (vLLM 0.32).

Rendering (chat templates, tokenization) and answering (tools, reasoning, logprobs, usage) are vLLM's;
no engine and no GPU is needed in this process.
"""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vllm import AsyncEngineArgs
from vllm.config import VllmConfig
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.tokenize.serving import ServingTokenization
from vllm.renderers import renderer_from_config
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.v1.engine.input_processor import InputProcessor

from heliostat.spec import Family
from router.frontend.engine_client import AdmissionCheck, Availability, ClusterEngineClient
from router.pipeline import Pipeline

HANDLER_ARGS = Namespace(log_error_stack=False, sse_keep_alive_interval=0)
"""What vLLM's exception handlers read from `app.state.args`."""


@dataclass(frozen=True, slots=True)
class ModelServing:
    """Everything that answers for one model."""

    models: OpenAIServingModels
    chat: OpenAIServingChat
    completion: OpenAIServingCompletion
    tokenization: ServingTokenization


def build_serving(
    model_roots: Mapping[str, str],
    base: Path,
    family: Family,
    pipeline: Pipeline,
    availability: Availability,
    admission: AdmissionCheck,
) -> dict[str, ModelServing]:
    """Serving objects by model name; `model_roots` says what /v1/models shows as each model's root."""
    args = AsyncEngineArgs(model=str(base), dtype=family.dtype, max_model_len=family.max_model_len)
    vllm_config = VllmConfig(model_config=args.create_model_config())
    renderer = renderer_from_config(vllm_config)
    input_processor = InputProcessor(vllm_config, renderer)
    online_renderer = OnlineRenderer(
        model_config=vllm_config.model_config,
        renderer=renderer,
        request_logger=None,
        chat_template=None,
        chat_template_content_format="auto",
    )
    online_renderer.warmup()
    serving = {}
    for model, root in model_roots.items():
        client = ClusterEngineClient(
            model, pipeline, vllm_config, renderer, input_processor, availability, admission
        )
        models = OpenAIServingModels(client, [BaseModelPath(name=model, model_path=root)])
        serving[model] = ModelServing(
            models=models,
            chat=OpenAIServingChat(
                client,
                models,
                "assistant",
                online_renderer=online_renderer,
                request_logger=None,
                chat_template=None,
                chat_template_content_format="auto",
                enable_prompt_tokens_details=True,
            ),
            completion=OpenAIServingCompletion(
                client,
                models,
                online_renderer=online_renderer,
                request_logger=None,
                enable_prompt_tokens_details=True,
            ),
            tokenization=ServingTokenization(
                models, online_renderer, chat_template=None, chat_template_content_format="auto"
            ),
        )
    return serving
