"""Agents over one context: ICaRus and PrefillShare beside plain multi-LoRA vLLM.

    icarus          one base prefill replica, one ICaRus decode replica: the base writes all KV, also of
                    answers, so every model finds what the others left
    prefillshare    one base prefill replica, one decode replica with adapters: prompts are shared, and an
                    answer is prefilled once when it comes back as a part of the next prompt
    plain           one vLLM engine, two threads, prefix caching on: KV is each model's own, so every model
                    prefills the conversation for itself

All ways serve the same adapters, of all linears but keys and values, as ICaRus needs them: no way has less
to compute for an adapter than another. No two sessions have a token in common, so only turns share; with
many sessions at a time the KV room is what plain vLLM fills first. The ways of one call stand in one cluster.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from rich.console import Console

from benchmarks.many_models_family import Family
from benchmarks.many_models_plain import running_plain
from benchmarks.many_models_sessions import Sample, draw_sessions, run_sessions
from benchmarks.many_models_specs import agent_model, agents_spec, write_spec
from benchmarks.report import Metric
from benchmarks.server import running_cluster
from cluster.percentiles import percentile

AT_A_TIME = 4
PLAIN = "plain"

log = Console(stderr=True, highlight=False, soft_wrap=True)


class Way(NamedTuple):
    """Where a way listens, and what it calls the family's models."""

    name: str
    url: str
    models: tuple[str, ...]


class Figure(NamedTuple):
    """How a metric is read off a sample."""

    key: str
    unit: str
    better: Literal["higher", "lower"]
    read: Callable[[Sample], float]


TURN_P95 = Figure("turn_p95", "ms", "lower", lambda s: percentile([t.latency_ms for t in s.turns], 95))
PREFILLED = Figure("prefilled_per_turn", "tokens", "lower", lambda s: s.prefilled_tokens)
FIGURES = (
    TURN_P95,
    PREFILLED,
    Figure("turn_p50", "ms", "lower", lambda s: percentile([t.latency_ms for t in s.turns], 50)),
    Figure("turns_per_s", "turns/s", "higher", lambda s: s.turns_per_s),
    Figure("tok_per_s", "tok/s", "higher", lambda s: s.tok_per_s),
    Figure("hit_ratio", "of prompts", "higher", lambda s: s.hit_ratio),
)
GOALS = (TURN_P95, PREFILLED)
"""Of these the ratio to plain vLLM is to be at most 1."""


def compare(
    family: Family,
    folder: Path,
    *,
    ways: Sequence[str],
    models: Sequence[int],
    rounds: int,
    sessions: int,
    threads: int,
) -> Iterator[dict[str, Metric]]:
    """The ways at one number of models after the other, the peer with `threads`. Raises HeliostatError.

    Engines are started once and hold the adapters of the largest number throughout.
    """
    with ExitStack() as stack:
        url = stack.enter_context(
            running_cluster(write_spec(agents_spec(family, ways), folder / "agents.yaml"))
        )
        plain = stack.enter_context(running_plain(family, folder / "agents-plain.log", threads=threads))
        served = [Way(way, url, tuple(agent_model(way, name) for name in family.adapters)) for way in ways]
        served.append(Way(PLAIN, plain.url, tuple(family.adapters)))
        for way in served:
            run_sessions(
                way.url, draw_sessions(way.models, AT_A_TIME, seed="warm-up", turns=2), at_a_time=AT_A_TIME
            )
        for count in models:
            samples = [_round(served, count, number, sessions) for number in range(rounds)]
            yield summarize(count, samples)


def _round(served: Sequence[Way], count: int, number: int, sessions: int) -> dict[str, Sample]:
    samples = {}
    for way in _rotated(served, number):
        load = draw_sessions(way.models[:count], sessions, seed=f"{count} models, round {number}")
        sample = samples[way.name] = run_sessions(way.url, load, at_a_time=AT_A_TIME)
        log.print(
            f"{count} models, round {number + 1}, {way.name}: {sample.turns_per_s:.2f} turns/s, "
            f"p95 {TURN_P95.read(sample):.0f} ms, {sample.prefilled_tokens:.0f} tokens prefilled per turn"
        )
    return samples


def _rotated(served: Sequence[Way], by: int) -> Iterator[Way]:
    """Another way begins each round."""
    return (served[(by + number) % len(served)] for number in range(len(served)))


def summarize(count: int, samples: Sequence[Mapping[str, Sample]]) -> dict[str, Metric]:
    """The metrics of `count` models: each way's medians beside plain's, and medians of each round's ratio."""
    metrics: dict[str, Metric] = {}
    for way in (name for name in samples[0] if name != PLAIN):
        for figure in GOALS:
            metrics[f"agents_{count}_{way}_{figure.key}_ratio"] = Metric(
                value=_median(figure.read(s[way]) / figure.read(s[PLAIN]) for s in samples),
                unit="ratio",
                goal=1.0,
                better=figure.better,
            )
        for figure in FIGURES:
            metrics[f"agents_{count}_{way}_{figure.key}"] = Metric(
                value=_median(figure.read(s[way]) for s in samples),
                unit=figure.unit,
                better=figure.better,
                peer=_median(figure.read(s[PLAIN]) for s in samples),
            )
    return metrics


def _median(values: Iterator[float]) -> float:
    return round(median(values), 4)
