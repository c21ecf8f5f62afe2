"""vLLM's OpenAI layer, one set of serving objects per model (vLLM 0.32).

Rendering (chat templates, tokenization) and answering (tools, reasoning, logprobs, usage) are vLLM's;
no engine and no GPU is needed in this process.
"""

from argparse import Namespace
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
from vllm.tokenizers import TokenizerLike
from vllm.v1.engine.input_processor import InputProcessor

from heliostat.spec import Family
from router.frontend.engine_client import AdmissionCheck, Availability, ClusterEngineClient
from router.frontend.tool_calls import JSON, registered
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


class OpenAILayer:
    """What all models share: one renderer, one input processor. It makes serving objects, also later on."""

    def __init__(
        self,
        base: Path,
        family: Family,
        pipeline: Pipeline,
        availability: Availability,
        admission: AdmissionCheck,
        tool_parser: str = JSON,
    ) -> None:
        """`tool_parser` is the spec's. Raises HeliostatError for one that vLLM does not have."""
        self._tool_parser = registered(tool_parser)
        args = AsyncEngineArgs(model=str(base), dtype=family.dtype, max_model_len=family.max_model_len)
        self._vllm_config = VllmConfig(model_config=args.create_model_config())
        self._renderer = renderer_from_config(self._vllm_config)
        self._input_processor = InputProcessor(self._vllm_config, self._renderer)
        self._online_renderer = OnlineRenderer(
            model_config=self._vllm_config.model_config,
            renderer=self._renderer,
            request_logger=None,
            chat_template=None,
            chat_template_content_format="auto",
            enable_auto_tools=True,
            tool_parser=self._tool_parser,
        )
        self._online_renderer.warmup()
        self._pipeline, self._availability, self._admission = pipeline, availability, admission

    @property
    def tokenizer(self) -> TokenizerLike:
        """The family's."""
        return self._renderer.get_tokenizer()

    def serving(self, model: str, root: str) -> ModelServing:
        """The serving objects of one model; `root` is what /v1/models shows as its root."""
        client = ClusterEngineClient(
            model,
            self._pipeline,
            self._vllm_config,
            self._renderer,
            self._input_processor,
            self._availability,
            self._admission,
        )
        models = OpenAIServingModels(client, [BaseModelPath(name=model, model_path=root)])
        return ModelServing(
            models=models,
            chat=OpenAIServingChat(
                client,
                models,
                "assistant",
                online_renderer=self._online_renderer,
                request_logger=None,
                chat_template=None,
                chat_template_content_format="auto",
                enable_auto_tools=True,
                tool_parser=self._tool_parser,
                enable_prompt_tokens_details=True,
            ),
            completion=OpenAIServingCompletion(
                client,
                models,
                online_renderer=self._online_renderer,
                request_logger=None,
                enable_prompt_tokens_details=True,
            ),
            tokenization=ServingTokenization(
                models, self._online_renderer, chat_template=None, chat_template_content_format="auto"
            ),
        )
