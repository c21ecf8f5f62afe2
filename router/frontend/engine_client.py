"""To vLLM's OpenAI layer, the whole cluster looks like one engine per model.

`ClusterEngineClient` has the part of `vllm.engine.protocol.EngineClient` that the chat and completion
layers call (vLLM 0.32): configuration, `check_admission` and `generate`.
"""

import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from http import HTTPStatus
from typing import Protocol

import msgspec
from vllm.config import ModelConfig, VllmConfig
from vllm.exceptions import GenerationError, GracefulHTTPError, VLLMValidationError
from vllm.inputs import EngineInput
from vllm.outputs import RequestOutput
from vllm.renderers import BaseRenderer
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.input_processor import InputProcessor

from heliostat.errors import OverloadedError, PoolUnavailableError, RequestError
from router.frontend.hints import NO_HINTS, Hints
from router.frontend.sequences import RequestText
from router.pipeline import GenerateRequest, Pipeline
from router.requests import current_request
from router.trace import Trace

current_trace: ContextVar[Trace] = ContextVar("current_trace")
"""The endpoint sets it before it calls vLLM's layer, and reads the replicas from it afterwards."""

current_hints: ContextVar[Hints] = ContextVar("current_hints")
"""What the client said about its request beside the body; the endpoint sets it."""


class AdmissionCheck(Protocol):
    """The part of `router.admission.Admission` that answers before anything is awaited."""

    def check(self, model: str, n: int = 1) -> None:
        """Raises OverloadedError, InvalidRequestError."""


Availability = Callable[[str], str | None]
"""Model name to the reason why it cannot be served now, or None."""


class ClusterEngineClient:
    """The engine client of one model; all models share renderer, input processor and pipeline."""

    errored = False
    """One engine client stands for many engines: none of their deaths is the death of all."""

    dead_error = GenerationError("the cluster is one engine that never dies as a whole")

    def __init__(
        self,
        model: str,
        pipeline: Pipeline,
        vllm_config: VllmConfig,
        renderer: BaseRenderer,
        input_processor: InputProcessor,
        availability: Availability,
        admission: AdmissionCheck,
    ) -> None:
        self.vllm_config = vllm_config
        self.model_config: ModelConfig = vllm_config.model_config
        self.renderer = renderer
        self.input_processor = input_processor
        self._model = model
        self._pipeline = pipeline
        self._availability = availability
        self._admission = admission

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        """Refuse before the first byte of an answer.

        Raises GracefulHTTPError (429 or 503), InvalidRequestError.
        """
        if opened := current_request.get():
            opened.request.model = self._model
        if reason := self._availability(self._model):
            raise GracefulHTTPError(reason, HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            self._admission.check(self._model, n)
        except OverloadedError as error:
            raise self._as_vllm_error(error) from error

    async def generate(
        self,
        prompt: EngineInput,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        session_id: str | None = None,
        **unused: object,
    ) -> AsyncGenerator[RequestOutput, None]:
        """One request over the pipeline; closing it stops both legs."""
        request = self._process(prompt, sampling_params, request_id)
        params = request.sampling_params
        text = RequestText(request, params, self.renderer.get_tokenizer(), prompt.get("prompt"))
        # One HTTP request may hold several prompts, each with a fate of its own.
        shown = current_trace.get(Trace())
        trace = Trace(started_s=shown.started_s)
        hints = current_hints.get(NO_HINTS)
        opened = current_request.get()
        if opened is not None:
            opened.prompt(trace)
        frames = self._pipeline.generate(
            GenerateRequest(
                # Clients name requests (x-request-id), and name a second try like the first. What replicas
                # remember of that one, as aborted, must not meet this one.
                request_id=f"{request_id}-{random.getrandbits(32):08x}",
                model=self._model,
                token_ids=tuple(request.prompt_token_ids),
                sampling=msgspec.msgpack.encode(params),
                trace=trace,
                max_tokens=params.max_tokens or 0,
                bound=bound(params),
                priority=priority,
                session=hints.session or session_id or "",
                deadline_s=hints.deadline_s,
                expected_tokens=hints.expected_tokens,
                reuse_soon=hints.reuse_soon,
            )
        )
        answering = False
        try:
            async with aclosing(frames):
                async for frame in frames:
                    if not answering:
                        shown.answers(trace)
                        answering = True
                    shown.prefill_replica, shown.decode_replica = trace.prefill_replica, trace.decode_replica
                    output = text.add(frame, trace.cached_tokens)
                    trace.finished = text.finished
                    if output is not None:
                        yield output
                    if text.finished:
                        return
        except RequestError as error:
            raise self._as_vllm_error(error) from error
        finally:
            if opened is not None:
                opened.ended()
        if not text.finished:
            raise GenerationError("the decode replica ended the stream before the request was finished")

    @staticmethod
    def _as_vllm_error(error: RequestError) -> GracefulHTTPError | GenerationError:
        """vLLM's errors carry no Retry-After; the endpoint finds it in the trace."""
        if isinstance(error, OverloadedError | PoolUnavailableError) and (trace := current_trace.get(None)):
            trace.retry_after_s = error.retry_after_s
        return as_vllm_error(error)

    def _process(self, prompt: EngineInput, params: SamplingParams, request_id: str) -> EngineCoreRequest:
        """vLLM's own validation and defaults; what would break the rules of sharing is refused."""
        if params.prompt_logprobs is not None:
            # The decode module would compute the prompt to answer this (rule 5).
            raise VLLMValidationError(
                "log probabilities of prompt tokens are not available on shared pools; "
                "leave out `prompt_logprobs` and `echo` with `logprobs`",
                parameter="prompt_logprobs",
            )
        if params.extra_args and params.extra_args.get("kv_transfer_params"):
            raise VLLMValidationError(
                "`kv_transfer_params` belongs to the server", parameter="kv_transfer_params"
            )
        if prompt["type"] != "token":
            raise VLLMValidationError(
                "only text prompts are served", parameter="prompt", value=prompt["type"]
            )
        return self.input_processor.process_inputs(request_id, prompt, params, supported_tasks=("generate",))


def as_vllm_error(error: RequestError) -> GracefulHTTPError | GenerationError:
    """An error of ours as the one that vLLM's layer turns into the same HTTP status."""
    if isinstance(error, PoolUnavailableError) or error.status < 500:
        return GracefulHTTPError(error.message, HTTPStatus(error.status))
    return GenerationError(error.message)


def bound(params: SamplingParams) -> str:
    """Why another replica could not carry on with an answer of these parameters token for token, or ``""``.

    There, the tokens so far are prompt (rule 6). What depends on where the output begins, or on random
    numbers drawn for it, would come out differently.
    """
    reasons = {
        "it has several sequences (n)": params.n > 1,
        "its output is structured": params.structured_outputs is not None,
        "presence and frequency penalties count output only": bool(
            params.presence_penalty or params.frequency_penalty
        ),
        "bad_words look back into the output": bool(params.bad_words),
        "repetition_detection looks back into the output": (
            params.repetition_detection is not None and params.repetition_detection.max_pattern_size > 0
        ),
        "its seed's random numbers are drawn from the start": params.seed is not None
        and params.temperature > 0,
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)
