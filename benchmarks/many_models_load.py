"""Many LoRA models: SUN's two pools beside plain multi-LoRA vLLM in one engine, under one load.

    ours    one prefill replica with the base and N adapters, one decode replica with the base alone
    plain   one vLLM engine with the base and N adapters, two threads

Models are asked in turn, so that a batch holds as many different ones as it can. Both sides have slots for
eight adapters in a batch and keep all N in memory. When requests of more than eight models wait, vLLM's
scheduler holds the others back until a slot is free. Plain vLLM holds a slot for a whole answer, ours for a
prompt only: SUN decodes without adapters.

Memory is PSS where the system tells it, of all processes of the replicas here, and of the API server and its
engine there; `memory_all` adds our router, proxy and Ray. Engines map libraries and adapters from the same
files, and PSS gives each process its part of a page: either side alone on the machine would show more.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import psutil
from rich.console import Console

from benchmarks.load import Answer, LoadRequest, closed_loop, random_letters, run_load
from benchmarks.many_models_family import Family
from benchmarks.many_models_plain import running_plain
from benchmarks.many_models_specs import sun_spec, write_spec
from benchmarks.plain_vllm import Plain
from benchmarks.processes import cpu_seconds, cpu_spent, resident_memory
from benchmarks.report import Metric
from benchmarks.server import running_cluster
from cluster.percentiles import percentile
from cluster.status import fetch_status

STREAMS = 16
PROMPT_TOKENS = 128
OUTPUT_TOKENS = 48
WARM_UP_TOKENS = 8
GOAL_FROM = 32
"""With so many models and more, ours is to give at least as many tokens per second."""

log = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """One side in one round; `others_cores` is what the side that was not asked took meanwhile."""

    tokens: int
    wall_s: float
    ttft_ms: tuple[float, ...]
    tpot_ms: tuple[float, ...]
    engines_gib: float
    all_gib: float
    others_cores: float

    @property
    def tok_per_s(self) -> float:
        return self.tokens / self.wall_s


class Pair(NamedTuple):
    """Both sides in one round."""

    ours: Sample
    plain: Sample


class Figure(NamedTuple):
    """How a metric is read off a sample."""

    key: str
    unit: str
    better: Literal["higher", "lower"]
    read: Callable[[Sample], float]


FIGURES = (
    Figure("tok_per_s", "tok/s", "higher", lambda s: s.tok_per_s),
    Figure("ttft_p50", "ms", "lower", lambda s: percentile(s.ttft_ms, 50)),
    Figure("ttft_p95", "ms", "lower", lambda s: percentile(s.ttft_ms, 95)),
    Figure("tpot_p50", "ms", "lower", lambda s: percentile(s.tpot_ms, 50)),
    Figure("memory_engines", "GiB", "lower", lambda s: s.engines_gib),
    Figure("memory_all", "GiB", "lower", lambda s: s.all_gib),
    Figure("others_cores", "cores", "lower", lambda s: s.others_cores),
)


def compare(family: Family, folder: Path, *, rounds: int, requests: int, threads: int) -> dict[str, Metric]:
    """Both sides over all models of the family; the peer computes with `threads`.

    Raises HeliostatError, also when one request fails.
    """
    count = len(family.adapters)
    spec = write_spec(sun_spec(family), folder / f"sun-{count}.yaml")
    plain_log = folder / f"plain-{count}.log"
    with running_cluster(spec) as url, running_plain(family, plain_log, threads=threads) as plain:
        for side in (url, plain.url):
            _offer(side, draw(family, STREAMS, seed="warm-up", first=0, max_tokens=WARM_UP_TOKENS))
        pairs = [_round(url, plain, family, number, requests) for number in range(rounds)]
    return summarize(count, pairs)


def draw(
    family: Family, count: int, *, seed: str, first: int, max_tokens: int = OUTPUT_TOKENS
) -> list[LoadRequest]:
    """`count` requests to the models in turn, from number `first` on; no two prompts are alike."""
    rng = random.Random(seed)
    names = list(family.adapters)
    return [
        LoadRequest(names[(first + number) % len(names)], random_letters(rng, PROMPT_TOKENS), max_tokens)
        for number in range(count)
    ]


def summarize(count: int, pairs: Sequence[Pair]) -> dict[str, Metric]:
    """The metrics of `count` models: medians over the rounds, and the median of each round's ratio."""
    ratio = median(pair.ours.tok_per_s / pair.plain.tok_per_s for pair in pairs)
    goal = 1.0 if count >= GOAL_FROM else None
    metrics = {
        f"models_{count}_tok_per_s_ratio": Metric(
            value=round(ratio, 4), unit="ratio", goal=goal, better="higher"
        )
    }
    for figure in FIGURES:
        metrics[f"models_{count}_{figure.key}"] = Metric(
            value=round(median(figure.read(pair.ours) for pair in pairs), 4),
            unit=figure.unit,
            better=figure.better,
            peer=round(median(figure.read(pair.plain) for pair in pairs), 4),
        )
    return metrics


def _round(url: str, plain: Plain, family: Family, number: int, requests: int) -> Pair:
    # A round goes on with the models where the last one ended, so that all of many come up.
    load = draw(family, requests, seed=f"round {number}", first=number * requests)
    cluster = [child.pid for child in psutil.Process().children() if child.pid != plain.pid]
    replicas = [replica.pid for pool in fetch_status(url).pools for replica in pool.replicas]
    samples: dict[str, Sample] = {}
    for side in ("ours", "plain") if number % 2 == 0 else ("plain", "ours"):
        mine, others = (cluster, [plain.pid]) if side == "ours" else ([plain.pid], cluster)
        samples[side] = _measure(
            url if side == "ours" else plain.url,
            load,
            engines=replicas if side == "ours" else mine,
            everything=mine,
            others=others,
        )
    pair = Pair(samples["ours"], samples["plain"])
    log.print(
        f"{len(family.adapters)} models, round {number + 1}: ours {pair.ours.tok_per_s:.1f} tok/s, "
        f"plain {pair.plain.tok_per_s:.1f} tok/s"
    )
    return pair


def _measure(
    url: str,
    load: Sequence[LoadRequest],
    *,
    engines: Sequence[int],
    everything: Sequence[int],
    others: Sequence[int],
) -> Sample:
    cpu_before = cpu_seconds(others)
    answers = _offer(url, load)
    cpu_after = cpu_seconds(others)
    wall_s = max(answer.last_s for answer in answers) - min(answer.sent_s for answer in answers)
    return Sample(
        tokens=sum(len(answer.token_ids) for answer in answers),
        wall_s=wall_s,
        ttft_ms=tuple(answer.ttft_ms for answer in answers),
        tpot_ms=tuple(answer.tpot_ms for answer in answers if answer.tpot_ms is not None),
        engines_gib=resident_memory(engines).num_bytes / 2**30,
        all_gib=resident_memory(everything).num_bytes / 2**30,
        others_cores=cpu_spent(cpu_before, cpu_after) / wall_s,
    )


def _offer(url: str, load: Sequence[LoadRequest]) -> list[Answer]:
    return run_load(url, load, partial(closed_loop, streams=STREAMS))
