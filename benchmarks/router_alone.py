"""`AsyncLLM` alone in a process of its own: one vLLM engine, no server. `python -m benchmarks.router_alone`

Answers with one JSON line per load, in the terms of `benchmarks.router_load`.
"""

import argparse
import asyncio
import time
from pathlib import Path

from pydantic import BaseModel

from cluster.percentiles import percentile
from heliostat.spec import Family, Pool


class AloneResult(BaseModel):
    """One closed loop: tokens per second from the first token to the last, and the requests' TPOT."""

    streams: int
    tok_per_s: float
    tpot_p50_ms: float


async def measure(pool: Pool, family: Family, loads: list[tuple[int, int]], lengths: tuple[int, int]) -> None:
    """Run each load, streams and requests of each, with so many prompt and output tokens, and print it."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    prompt_tokens, max_tokens = lengths
    llm = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=pool.weights,
            dtype=family.dtype,
            max_model_len=family.max_model_len,
            max_num_seqs=pool.max_running,
            block_size=family.block_size,
            enforce_eager=True,
            kv_cache_memory_bytes=2**30,
            enable_prefix_caching=False,
        )
    )
    sampling = SamplingParams(
        max_tokens=max_tokens, temperature=0.0, ignore_eos=True, output_kind=RequestOutputKind.DELTA
    )

    async def one(name: str, seed: int) -> tuple[float, float]:
        ids = [(seed * 31 + position * 7) % 60 + 10 for position in range(prompt_tokens)]
        first = 0.0
        async for _ in llm.generate(tokens_input(ids), sampling, name):
            first = first or time.perf_counter()
        return first, time.perf_counter()

    async def stream(number: int, requests: int, mark: str) -> list[tuple[float, float]]:
        return [await one(f"{mark}-{number}-{turn}", number * 1000 + turn) for turn in range(requests)]

    await asyncio.gather(*(stream(number, 1, "warm") for number in range(8)))
    for turn, (streams, requests) in enumerate(loads):
        spans = await asyncio.gather(*(stream(number, requests, f"load{turn}") for number in range(streams)))
        times = [span for each in spans for span in each]
        wall = max(last for _, last in times) - min(first for first, _ in times)
        tpots = [(last - first) * 1e3 / (max_tokens - 1) for first, last in times]
        result = AloneResult(
            streams=streams,
            tok_per_s=streams * requests * (max_tokens - 1) / wall,
            tpot_p50_ms=percentile(tpots, 50),
        )
        print(result.model_dump_json(), flush=True)
    llm.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--loads", nargs="+", required=True, metavar="STREAMSxREQUESTS")
    parser.add_argument("--prompt-tokens", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    args = parser.parse_args()
    loads = [
        (int(streams), int(requests)) for streams, _, requests in (load.partition("x") for load in args.loads)
    ]
    pool = Pool(weights=str(args.weights), gpus=0, max_running=64)
    family = Family(base=str(args.weights), dtype="float32", max_model_len=2048, block_size=32)
    asyncio.run(measure(pool, family, loads, (args.prompt_tokens, args.max_tokens)))


if __name__ == "__main__":
    main()
