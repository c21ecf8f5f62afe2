"""One side of a comparison under one load: its throughput, latency, CPU time, memory and handoffs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.load import Drive, LoadRequest, closed_loop, random_letters, run_load, zipf_ranks
from benchmarks.processes import Memory, cpu_seconds, cpu_spent, resident_memory
from cluster.percentiles import percentile
from cluster.status import fetch_status
from heliostat.errors import HeliostatError
from heliostat.status import ReplicaStatus
from heliostat.wire import Role

PROMPT_TOKENS = 200
MARK_TOKENS = 4
OUTPUT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Side:
    """One way to serve the models, which are in the order of their popularity."""

    name: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one side did in one round. Bytes and CPU seconds are those of its decode replicas."""

    tokens: int
    wall_s: float
    ttft_ms: tuple[float, ...]
    tpot_ms: tuple[float, ...]
    cpu_s: float
    handoff_bytes: int
    memory: Memory
    replicas: int

    @property
    def tok_per_s(self) -> float:
        return self.tokens / self.wall_s

    @property
    def tok_per_s_per_replica(self) -> float:
        return self.tok_per_s / self.replicas

    @property
    def tok_per_cpu_s(self) -> float:
        return self.tokens / self.cpu_s

    @property
    def tpot_p50_ms(self) -> float:
        return percentile(self.tpot_ms, 50)


def draw_requests(
    side: Side, count: int, *, exponent: float, seed: str, max_tokens: int = OUTPUT_TOKENS
) -> list[LoadRequest]:
    """`count` requests; with one `seed`, every side gets the same models, letters and lengths.

    Only the first few letters are the side's own: the sides share prefill replicas, and the one that runs
    second must not find the prompts of the first in their prefix caches.
    """
    rng = random.Random(seed)
    mark = random_letters(random.Random(f"{seed} {side.name}"), MARK_TOKENS)
    ranks = zipf_ranks(rng, items=len(side.models), exponent=exponent, draws=count)
    return [
        LoadRequest(side.models[rank], mark + random_letters(rng, PROMPT_TOKENS - MARK_TOKENS), max_tokens)
        for rank in ranks
    ]


def measure(url: str, side: Side, requests: Sequence[LoadRequest], drive: Drive) -> Sample:
    """Run `requests` and read the side's decode replicas before and after. Raises HeliostatError."""
    before = decode_replicas(url, side)
    pids = [replica.pid for replica in before]
    cpu_before = cpu_seconds(pids)
    answers = run_load(url, requests, drive)
    cpu_after = cpu_seconds(pids)
    after = decode_replicas(url, side)
    if [replica.pid for replica in after] != pids:
        raise HeliostatError(f"{side.name}: the decode replicas changed while they were measured")
    return Sample(
        tokens=sum(len(answer.token_ids) for answer in answers),
        wall_s=max(a.last_s for a in answers) - min(a.sent_s for a in answers),
        ttft_ms=tuple(answer.ttft_ms for answer in answers),
        tpot_ms=tuple(answer.tpot_ms for answer in answers if answer.tpot_ms is not None),
        cpu_s=cpu_spent(cpu_before, cpu_after),
        handoff_bytes=sum(r.copied_bytes for r in after) - sum(r.copied_bytes for r in before),
        memory=resident_memory(pids),
        replicas=len(pids),
    )


def decode_replicas(url: str, side: Side) -> list[ReplicaStatus]:
    """The replicas of every decode pool that a model of `side` names, in a fixed order."""
    pools = [pool for pool in fetch_status(url).pools if pool.role is Role.DECODE]
    if absent := set(side.models) - {model for pool in pools for model in pool.models}:
        raise HeliostatError(f"{url} does not serve {', '.join(sorted(absent))}")
    mine = [pool for pool in pools if set(pool.models) & set(side.models)]
    return sorted((replica for pool in mine for replica in pool.replicas), key=lambda r: r.pid)


def check_equal_tokens(url: str, left: Side, right: Side, *, prompts: int) -> None:
    """Each model answers `prompts` prompts with the same tokens on both sides, one request at a time.

    Raises HeliostatError at the first difference: the sides would not do the same work.
    """
    rng = random.Random("equal tokens")
    for pair in zip(left.models, right.models, strict=True):
        for prompt in (random_letters(rng, PROMPT_TOKENS) for _ in range(prompts)):
            requests = [LoadRequest(model, prompt, OUTPUT_TOKENS) for model in pair]
            first, second = run_load(url, requests, partial(closed_loop, streams=1))
            if first.token_ids != second.token_ids:
                raise HeliostatError(f"models {pair[0]} and {pair[1]} answer {prompt!r} differently")
