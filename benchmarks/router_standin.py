"""vLLM's own API server over an engine that costs nothing: the upstream of every router that is compared.

    python -m benchmarks.router_standin --port 8000 --model base --weights examples/quickstart/weights/base

All of `vllm serve`'s server process is vLLM's own (0.32): its application and routes, its uvicorn settings on
uvloop, its `AsyncLLM` with input processing, incremental detokenization and statistics. Only the engine core
is ours: it takes no time, and answers with the prompt's own tokens, over and over, until `max_tokens`.
An access log is not written. Not covered: several processes, stop token ids, log probabilities, n > 1.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import uvloop
from vllm import AsyncEngineArgs
from vllm.config import VllmConfig
from vllm.entrypoints.launchers.api_server.entry import build_and_serve
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.launchers.launcher import setup_server
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.tasks import SupportedTask
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core_client import EngineCoreClient
from vllm.v1.executor.abstract import Executor


class StandInRequest:
    """One running request. `waits` says that the client has not taken its last token yet."""

    def __init__(self, request: EngineCoreRequest) -> None:
        params = request.sampling_params
        assert params is not None and params.max_tokens is not None and request.prompt_token_ids
        self._id = request.request_id
        self._tokens = request.prompt_token_ids
        self._max_tokens = params.max_tokens
        self._made = 0
        # Nothing is taken before the end where nothing is streamed.
        self._streams = params.output_kind is not RequestOutputKind.FINAL_ONLY
        self.waits = False

    def step(self) -> EngineCoreOutput:
        """The next token."""
        token = self._tokens[self._made % len(self._tokens)]
        self._made += 1
        self.waits = self._streams
        finished = self._made >= self._max_tokens
        return EngineCoreOutput(self._id, [token], finish_reason=FinishReason.LENGTH if finished else None)


class StandInCore(EngineCoreClient):  # type: ignore[misc]
    """The part of the engine core's client that `AsyncLLM` calls; one step gives one token per request.

    With `step_s` zero a request gets its next token only when its last one is taken. An engine in no time
    at all would otherwise be done before anything is sent, and every answer would be one merged event.
    With a step time it keeps the beat, and tokens of a client that lags behind merge as vLLM merges them.
    """

    engine_ranks_managed: Sequence[int] = (0,)
    resources = SimpleNamespace(engine_dead=False)

    def __init__(self, step_s: float = 0.0) -> None:
        self._step_s = step_s
        self._next_s = 0.0
        self._running: dict[str, StandInRequest] = {}
        self._awake = asyncio.Event()

    async def get_supported_tasks_async(self) -> tuple[SupportedTask, ...]:
        return ("generate",)

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        self._running[request.request_id] = StandInRequest(request)
        self._awake.set()

    async def abort_requests_async(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            self._running.pop(request_id, None)

    async def reset_mm_cache_async(self) -> None:
        """There is none."""

    def taken(self, request_id: str) -> None:
        """The client took what there was of this request."""
        if request := self._running.get(request_id):
            request.waits = False
            self._awake.set()

    async def get_output_async(self) -> EngineCoreOutputs:
        """One step of all requests that may go on."""
        while True:
            await self._pace()
            outputs = [
                request.step() for request in self._running.values() if self._step_s or not request.waits
            ]
            if outputs:
                for output in outputs:
                    if output.finish_reason is not None:
                        del self._running[output.request_id]
                return EngineCoreOutputs(outputs=outputs)
            self._awake.clear()
            await self._awake.wait()

    async def _pace(self) -> None:
        now = time.monotonic()
        self._next_s = max(self._next_s + self._step_s, now)
        # Others run between two steps, also where a step takes no time.
        await asyncio.sleep(self._next_s - now)

    def shutdown(self, timeout: float | None = None) -> None:
        """Nothing runs."""


class StandInLLM(AsyncLLM):  # type: ignore[misc]
    """vLLM's `AsyncLLM` over a `StandInCore`."""

    def __init__(self, vllm_config: VllmConfig, *, step_s: float = 0.0, log_stats: bool = True) -> None:
        self._core = StandInCore(step_s)
        # The constructor builds its core client by this factory and takes none as an argument.
        with patch.object(EngineCoreClient, "make_async_mp_client", lambda **unused: self._core):
            super().__init__(vllm_config, Executor, log_stats=log_stats, log_requests=False)

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """As `AsyncLLM`, and tells the core what was taken; the core knows requests by their inner ids."""
        queue = await self.add_request(
            request_id,
            prompt,
            sampling_params,
            lora_request=options.get("lora_request"),
            priority=options.get("priority", 0),
        )
        try:
            finished = False
            while not finished:
                output = queue.get_nowait() or await queue.get()
                assert isinstance(output, RequestOutput)
                finished = output.finished
                yield output
                self._core.taken(queue.request_id)
        finally:
            if not finished:
                await self.abort(queue.request_id, internal=True)
            queue.close()


async def serve(args: argparse.Namespace, step_s: float) -> None:
    """Serve until SIGINT or SIGTERM, as `vllm serve` does."""
    address, sock = setup_server(args, reuse_port=False)
    vllm_config = AsyncEngineArgs.from_cli_args(args).create_engine_config()
    engine = StandInLLM(vllm_config, step_s=step_s, log_stats=not args.disable_log_stats)
    stopped = await build_and_serve(engine, address, sock, args)
    try:
        await stopped
    finally:
        sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="the name that clients ask for")
    parser.add_argument("--weights", required=True, help="a checkpoint; only config and tokenizer are read")
    parser.add_argument("--step-ms", type=float, default=0.0, help="time of one engine step")
    parser.add_argument("--no-stats", action="store_true", help="as `vllm serve --disable-log-stats`")
    options = parser.parse_args()
    uvloop.run(serve(_vllm_arguments(options), options.step_ms / 1000))


def _vllm_arguments(options: argparse.Namespace) -> argparse.Namespace:
    """What `vllm serve` makes of these options and its defaults."""
    line = ["--model", options.weights, "--served-model-name", options.model, "--host", options.host]
    line += ["--port", str(options.port), "--disable-uvicorn-access-log", "--dtype", "float32"]
    if options.no_stats:
        line.append("--disable-log-stats")
    arguments: argparse.Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args(line)
    return arguments


if __name__ == "__main__":
    main()
