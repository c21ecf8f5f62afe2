"""How much of a handoff a running prefill hides: real vLLM engines, KV of the 8B geometry, a narrow model.

One prefill and one decode engine in chunks of CHUNK_TOKENS, driven by the router's own pipeline without
Ray. The model has the KV of Qwen3-8B (36 layers, 8 KV heads of 128) and random weights of hidden size 256:
its KV is as large, its prefill far cheaper than the real one's, so what is hidden here is hidden there.

    late    the decode engine gets the ticket when the prefill is over: saves hide, the load does not
    early   it gets it when the last chunk begins, and loads what is there meanwhile

`hidden` is the share of the milliseconds spent copying, on both sides, that passed while the prefill still
computed; `ttft` is from the request to its first token, beside that of the other choice.
"""

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import uuid4

import msgspec

from benchmarks.policy_cluster import OpenDoor
from benchmarks.report import REPOSITORY, Metric
from benchmarks.transfer_kv import QWEN3_8B
from deployments.engine import Engine, EngineConfig
from deployments.environment import replica_environment
from heliostat.spec import Family, Pool, Transfer, Transport
from heliostat.status import HandoffFigures
from heliostat.wire import DecodeRequest, PrefillRequest, PrefillResult, Role, Ticket, TokenFrame
from router.pipeline import GenerateRequest, Pipeline
from router.route import Route
from router.trace import Trace

CHUNK_TOKENS = 256
HIDDEN_SHARE = 0.8
TOKENS = (2048, 4096)
VOCABULARY = 101
MAX_MODEL_LEN = 4352


class Cost(NamedTuple):
    """Of one request."""

    ttft_ms: float
    copy_ms: float
    hidden_ms: float


class _LocalPrefill:
    """`router.pipeline.PrefillPool` over one engine of this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        return await self._engine.prefill(request)

    def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        return self._engine.prefill_early(request)

    async def release(self, ticket: Ticket) -> None:
        await self._engine.release(ticket.ticket_id)


class _LocalDecode:
    """`router.pipeline.DecodePool` over one engine of this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        return 0

    def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        return self._engine.decode(request)


def hidden(transports: Sequence[Transport], tokens: Sequence[int], rounds: int) -> dict[str, Metric]:
    """The metrics of this part, for each transport and prompt length."""
    pool = Pool(weights="", gpus=0, cpus=1, kv_cache_gib=1.5, max_running=4)
    os.environ.update(replica_environment(pool))  # before vLLM is imported
    metrics: dict[str, Metric] = {}
    with _weights() as weights, TemporaryDirectory(dir="/dev/shm", prefix="heliostat-bench-") as folder:
        for transport in transports:
            transfer = Transfer(transport=transport, directory=f"{folder}/{transport}", memory_gib=1.5)
            costs = asyncio.run(_measure(pool, transfer, weights, tokens, rounds))
            metrics |= _metrics(transport, costs)
    return metrics


@contextmanager
def _weights() -> Iterator[Path]:
    """A checkpoint of that shape, with the tokenizer of the quickstart's."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with TemporaryDirectory() as folder:
        shutil.copytree(REPOSITORY / "examples/quickstart/weights/base", folder, dirs_exist_ok=True)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=256,
            num_hidden_layers=QWEN3_8B.num_layers,
            num_attention_heads=QWEN3_8B.num_kv_heads,
            num_key_value_heads=QWEN3_8B.num_kv_heads,
            head_dim=QWEN3_8B.head_size,
            max_position_embeddings=MAX_MODEL_LEN,
            eos_token_id=1,
        )
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        yield Path(folder)


def _config(role: Role, pool: Pool, transfer: Transfer, weights: Path) -> EngineConfig:
    arguments = {"max_num_batched_tokens": CHUNK_TOKENS if role is Role.PREFILL else MAX_MODEL_LEN}
    return EngineConfig(
        role=role,
        name="bench",
        pool=pool.model_copy(update={"engine_args": arguments}),
        family=Family(
            base=str(weights),
            dtype="bfloat16",
            max_model_len=MAX_MODEL_LEN,
            block_size=QWEN3_8B.block_tokens,
        ),
        transfer=transfer,
        weights=weights,
        domain="bench",
        replica=f"{role}-bench",
        owner=uuid4().hex,
    )


async def _measure(
    pool: Pool, transfer: Transfer, weights: Path, tokens: Sequence[int], rounds: int
) -> dict[tuple[int, str], list[Cost]]:
    """Both choices in turn, on the same two engines; the first request of each is not counted."""
    from deployments.vllm_engine import VllmEngine

    prefill, decode = (VllmEngine(_config(role, pool, transfer, weights)) for role in Role)
    costs: dict[tuple[int, str], list[Cost]] = {}
    try:
        await prefill.start()
        await decode.start()
        route = Route(_LocalPrefill(prefill), _LocalDecode(decode))
        pipelines = {
            "late": Pipeline({"m": route}, OpenDoor()),
            "early": Pipeline({"m": route}, OpenDoor(), early=True),
        }
        for length in tokens:
            for number in range(rounds + 1):
                for choice in ("late", "early") if number % 2 else ("early", "late"):
                    cost = await _request(pipelines[choice], prefill, decode, length)
                    if number:
                        costs.setdefault((length, choice), []).append(cost)
                        print(f"{transfer.transport:<4} {length} {choice:<5} {cost}", flush=True)
    finally:
        prefill.stop()
        decode.stop()
    return costs


async def _request(pipeline: Pipeline, prefill: Engine, decode: Engine, length: int) -> Cost:
    from vllm import SamplingParams

    rng = random.Random()  # a prompt that was never there: nothing may come from a cache
    ids = tuple(rng.randrange(2, VOCABULARY) for _ in range(length))
    sampling = msgspec.msgpack.encode(SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True))
    before = await _figures(prefill, decode)
    start = time.perf_counter()
    ttft_ms = 0.0
    async with aclosing(
        pipeline.generate(GenerateRequest(uuid4().hex, "m", ids, sampling, Trace()))
    ) as frames:
        async for _ in frames:
            ttft_ms = ttft_ms or (time.perf_counter() - start) * 1e3
    after = await _figures(prefill, decode)
    return Cost(ttft_ms, after[0] - before[0], after[1] - before[1])


async def _figures(*engines: Engine) -> tuple[float, float]:
    """Milliseconds of copying, and how many of them were hidden."""
    all_figures: list[HandoffFigures] = []
    for engine in engines:
        all_figures += (await engine.status(os.getpid())).handoffs
    return sum(f.ms for f in all_figures), sum(f.hidden_ms for f in all_figures)


def _metrics(transport: str, costs: dict[tuple[int, str], list[Cost]]) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for (length, choice), runs in costs.items():
        other = costs[length, "early" if choice == "late" else "late"]
        prefix = f"{transport}_{length}_{choice}"
        metrics[f"{prefix}_hidden"] = Metric(
            value=round(median(run.hidden_ms / run.copy_ms for run in runs), 4),
            unit="ratio",
            goal=HIDDEN_SHARE if choice == "early" else None,
            better="higher",
        )
        metrics[f"{prefix}_ttft"] = Metric(
            value=round(median(run.ttft_ms for run in runs), 2),
            unit="ms",
            better="lower",
            peer=round(median(run.ttft_ms for run in other), 2),
        )
    return metrics
