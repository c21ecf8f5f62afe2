"""vLLM in a replica: all that starts, asks and ends its `AsyncLLM` (vLLM 0.32)."""

import os
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial

import psutil
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.inputs import tokens_input
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from deployments.engine import EngineConfig, KvListener
from deployments.engine_log import EngineLog
from deployments.kv_events import KvEventReader
from deployments.telemetry import EngineTelemetry
from deployments.vllm_args import engine_args
from deployments.vllm_lora import EngineAdapters
from heliostat.errors import (
    EngineStartError,
    HandoffFailedError,
    HeliostatError,
    InvalidRequestError,
    PrefillFailedError,
)
from heliostat.wire import Adapter, DecodeRequest, PrefillRequest
from kvtransfer.owner import OwnerFolder

STOP_S = 10.0
"""An engine's processes unlink their shared memory when they end by themselves, not when killed."""


class VllmRunner:
    """One `AsyncLLM` from its start to its end, with its adapters, its KV events and its log."""

    def __init__(self, config: EngineConfig, telemetry: EngineTelemetry, on_kv: KvListener | None) -> None:
        self._config = config
        self._telemetry = telemetry
        self._on_kv = on_kv
        self._log = EngineLog(config.replica)
        self._adapters = EngineAdapters(config, on_kv)
        self._llm: AsyncLLM | None = None
        self._leftovers: OwnerFolder | None = None
        self._kv_events: KvEventReader | None = None
        self._traced = False

    async def start(self) -> None:
        """Raises EngineStartError with the root cause in one line."""
        if self._on_kv is not None and self._config.caches_prefixes:
            on_kv = partial(self._on_kv, self._config.replica)
            self._kv_events = KvEventReader(self._config.domain, on_kv, self._config.pool.icarus)
            self._kv_events.start()
        with self._log.redirect():
            try:
                self._llm = AsyncLLM.from_engine_args(
                    engine_args(self._config, self._kv_events), stat_loggers=[self._telemetry.factory]
                )
            except (ValueError, TypeError, RuntimeError, OSError) as error:
                cause = self._log.root_cause() or f"{type(error).__name__}: {error}"
                raise EngineStartError(self._config.pool_name, cause, str(self._log.path)) from error
        self._leftovers = OwnerFolder(self._config.transfer, uuid.uuid4().hex)
        self._leftovers.note_segments([os.getpid(), *_descendants()])
        self._traced = await self.llm.is_tracing_enabled()
        await self._adapters.open(self.llm, str(self._log.path))

    @property
    def llm(self) -> AsyncLLM:
        """The running engine. Raises HeliostatError before `start`."""
        if self._llm is None:
            raise HeliostatError(f"pool {self._config.pool_name}: the engine is not started")
        return self._llm

    async def run(
        self,
        request: PrefillRequest | DecodeRequest,
        token_ids: Sequence[int],
        sampling: SamplingParams,
        failure: type[PrefillFailedError | HandoffFailedError],
    ) -> AsyncGenerator[RequestOutput, None]:
        """The engine's outputs for these tokens, with the request's adapter. Closing it stops the request.

        vLLM's errors come as ours, InvalidRequestError or `failure`: they cross a process border, and vLLM's
        own would stop the router.
        """
        async with self._adapters.use(request.adapter, failure) as lora:
            try:
                outputs = self.llm.generate(
                    tokens_input(list(token_ids)),
                    sampling,
                    request.request_id,
                    lora_request=lora,
                    trace_headers=self._trace_headers(request),
                )
                async with aclosing(outputs):
                    async for output in outputs:
                        yield output
            except VLLMClientError as error:
                raise InvalidRequestError(str(error)) from error
            except (EngineDeadError, EngineGenerateError) as error:
                raise failure(f"{self._config.replica}: {error}") from error

    def _trace_headers(self, request: PrefillRequest | DecodeRequest) -> Mapping[str, str] | None:
        """What makes vLLM's own span of the request a part of its trace, where vLLM makes one."""
        if not (self._traced and request.traceparent):
            return None
        return {"traceparent": request.traceparent, "tracestate": request.tracestate}

    async def load_adapter(self, adapter: Adapter) -> None:
        """Have an adapter in memory before its first request. Raises HeliostatError."""
        async with self._adapters.use(adapter, HeliostatError):
            pass

    async def drop_adapter(self, digest: str) -> None:
        """No request will ask for this adapter any more."""
        await self._adapters.drop(digest)

    async def check_health(self) -> None:
        """Raises HeliostatError, with what the log says, when the engine cannot serve any more."""
        try:
            await self.llm.check_health()
        except EngineDeadError as error:
            cause = self._log.root_cause() or str(error)
            raise HeliostatError(f"pool {self._config.pool_name}: the engine died: {cause}") from error

    def stop(self) -> None:
        """End the engine and its processes."""
        if self._llm is not None:
            self._llm.shutdown(timeout=STOP_S)
            self._llm = None
        if self._kv_events is not None:
            self._kv_events.close()
            self._kv_events = None
        if self._leftovers is not None:
            self._leftovers.close()
            self._leftovers = None


def _descendants() -> list[int]:
    return [process.pid for process in psutil.Process().children(recursive=True)]
