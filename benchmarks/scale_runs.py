"""Simulated clusters for `benchmarks.scale`: one that is large, and many whose routers know little.

Qwen3-8B on H100, a GPU per replica, one prefill and one decode pool, as `simulator` reckons with them.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from heliostat.spec import Family as FamilySpec
from heliostat.spec import Model, Pool, Replicas, Spec
from heliostat.wire import Role
from simulator.outcome import Outcome
from simulator.profile import Hardware, profiles_of
from simulator.router import Options
from simulator.run import simulate
from simulator.slo import Slo
from simulator.summary import Summary, summarize
from simulator.timing.base import Chunk, Timing
from simulator.topology import Arrangement
from simulator.workload import WorkloadConfig, make_workload
from simulator.workload.lengths import LogNormal

BASE = "Qwen/Qwen3-8B"
MODELS = 8
SLO = Slo(ttft_ms=2000, tpot_ms=25)

PROMPT = LogNormal(mean=12_000, cap=64_000)
CHAT = LogNormal(mean=340, cap=2000)
"""Like Mooncake's conversation trace, whose means these are."""
LONG = LogNormal(mean=1000, cap=4000)
"""Answers where decode is what is looked at."""

BLOCK_TOKENS = 512
"""Of the trace: prompts are named in blocks of so many tokens."""

WARMUP = 0.5
"""A decode replica fills for two or three answers' time before it is as full as it will be."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated run. `imbalance`: deviation of requests over the decode replicas, over their mean."""

    summary: Summary
    simulated: int
    cpu_s: float
    imbalance: float


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What one router setting makes of a load: medians over seeds. Times in ms."""

    tpot_p50: float
    tpot_p99: float
    ttft_p95: float
    good_share: float
    refused_share: float
    preemptions: float
    imbalance: float


def cluster(prefill: int, decode: int, policy: str | None = None) -> Arrangement:
    """So many replicas of each role, with a policy for the decode pool (None: the default)."""

    def pool(replicas: int, name: str | None = None, tpot_ms: float | None = None) -> Pool:
        sized = Replicas(min=replicas, max=replicas)
        return Pool(weights=BASE, replicas=sized, policy=name, tpot_ms=tpot_ms)

    spec = Spec(
        family=FamilySpec(base=BASE, max_model_len=131_072),
        prefill={"shared": pool(prefill)},
        decode={"shared": pool(decode, policy, SLO.tpot_ms)},
        models={f"model-{i}": Model(prefill="shared", decode="shared") for i in range(MODELS)},
    )
    return Arrangement("spec", spec)


def prefill_capacity(prefill: int) -> float:
    """Requests per second at which so many prefill replicas compute all the time, each a prompt by itself."""
    draw = PROMPT.drawn_from(random.Random("capacity"))
    timing = _timing(Role.PREFILL)
    mean_ms = sum(_prompt_ms(timing, draw()) for _ in range(2000)) / 2000
    return prefill * 1000 / mean_ms


def _prompt_ms(timing: Timing, tokens: int) -> float:
    """Chunk by chunk, as vLLM's default cuts it."""
    starts = range(0, tokens, 8192)
    return sum(timing.step_ms(0, 0, (Chunk(min(8192, tokens - start), start),)) for start in starts)


def decode_capacity(decode: int) -> float:
    """Requests per second with `LONG` answers whose steps take exactly the target TPOT."""
    line = _timing(Role.DECODE).decode_line(16)
    context = PROMPT.mean + LONG.mean / 2
    batch = (SLO.tpot_ms - line.base_ms) / line.per_token_ms / context
    return decode * batch / (SLO.tpot_ms / 1000) / LONG.mean


def _timing(role: Role) -> Timing:
    return profiles_of(cluster(1, 1), Hardware(), Path(), BLOCK_TOKENS)[role, "shared"].timing


def run(
    arrangement: Arrangement,
    rate_per_s: float,
    duration_s: float,
    output: LogNormal,
    options: Options,
    *,
    seed: int = 0,
    warmup: float = 0.1,
) -> Run:
    """Poisson arrivals for so long. CPU seconds are this process's."""
    config = WorkloadConfig(
        kind="poisson",
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        prompt=PROMPT,
        output=output,
        block_tokens=BLOCK_TOKENS,
    )
    workload = make_workload(config, list(arrangement.spec.models))
    began_s = time.process_time()
    outcome = simulate(arrangement, workload, Hardware(), directory=Path(), seed=seed, options=options)
    spent_s = time.process_time() - began_s
    imbalance = _imbalance(outcome, warmup * duration_s)
    return Run(summarize(outcome, SLO, warmup), len(outcome.requests), spent_s, imbalance)


def _imbalance(outcome: Outcome, from_s: float) -> float:
    """Coefficient of variation of requests per decode replica, averaged over the timeline."""
    pool = next(pool for pool in outcome.pools.values() if pool.role is Role.DECODE)
    times = np.array(outcome.times_s)
    window = (times >= from_s) & (times <= outcome.duration_s)
    inside = (np.array(pool.running) + np.array(pool.waiting))[window] / pool.replicas
    spread = np.array(pool.spread)[window]
    return float((spread[inside > 0] / inside[inside > 0]).mean()) if (inside > 0).any() else 0.0


def knowledge(
    decode: int,
    policy: str,
    options: Options,
    *,
    load: float,
    duration_s: float,
    seeds: int,
) -> Knowledge:
    """So many decode replicas at a share `load` of `decode_capacity`, behind prefill replicas that are
    busy half of the time. Prompts have nothing in common, so KV events would tell nobody anything."""
    rate = load * decode_capacity(decode)
    prefill = max(2, round(rate / prefill_capacity(1) / 0.5))
    arrangement = cluster(prefill, decode, policy)
    runs = [
        run(arrangement, rate, duration_s, LONG, options, seed=seed, warmup=WARMUP) for seed in range(seeds)
    ]
    rows = [_row(each) for each in runs]
    return Knowledge(*(median(column) for column in zip(*rows, strict=True)))


def _row(each: Run) -> tuple[float, ...]:
    summary = each.summary
    pool = next(pool for pool in summary.pools if pool.role is Role.DECODE)
    return (
        summary.tpot_ms.p50 or 0.0,
        summary.tpot_ms.p99 or 0.0,
        summary.ttft_ms.p95 or 0.0,
        summary.good_share,
        summary.refused_share,
        float(pool.preemptions),
        each.imbalance,
    )
