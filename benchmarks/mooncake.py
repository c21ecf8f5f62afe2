"""Routing policies on Mooncake's conversation trace, at several loads: how many requests keep their SLO.

    python -m benchmarks.mooncake --trace mooncake_conversation.jsonl

Production policies, admission and telemetry in the simulator; Qwen3-8B on H100s, all models on one prefill
pool and one decode pool, so every figure is the routing's. Requests get their models by Zipf, drawn from the
seed. The oracle is our own pair of policies with an admission that knows how long each answer will be.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.report import RESULTS, Metric, make_report, write_json
from heliostat.spec import Family, Limits, Model, Pool, Replicas, Spec
from heliostat.wire import Role
from router.policy import DEFAULTS
from simulator.profile import Hardware
from simulator.router import Options
from simulator.run import simulate
from simulator.slo import Slo
from simulator.summary import Summary, summarize
from simulator.topology import arrange
from simulator.workload import WorkloadConfig, make_workload

MODELS = tuple(f"m{number}" for number in range(8))
PREFILL_REPLICAS, DECODE_REPLICAS = 8, 4
TRACE_S = 1200.0
"""Of the trace's own time."""

SLO = Slo(ttft_ms=2000.0, tpot_ms=25.0)

QUEUE_S = 0.5
"""A request that waits longer for a slot is refused, under every policy. With a quarter of the TTFT target
there is time for its prefill; with all of it, most of what waited that long is served too late to count."""

OURS, ORACLE = "ours", "oracle"


class Pair(NamedTuple):
    """A policy for each role, by the names of `router.policy.POLICIES`."""

    prefill: str
    decode: str


PAIRS = {
    OURS: Pair(DEFAULTS[Role.PREFILL], DEFAULTS[Role.DECODE]),
    "sticky + least load": Pair("sticky_session", "least_load"),
    "least requests": Pair("least_requests", "least_requests"),
    "power of two": Pair("power_of_two", "power_of_two"),
    "round robin": Pair("round_robin", "round_robin"),
    ORACLE: Pair(DEFAULTS[Role.PREFILL], DEFAULTS[Role.DECODE]),
}
"""PrefillShare keeps a session on one prefill replica (arXiv 2602.12029, section 3.3), SUN balances decode
replicas by load (arXiv 2603.02599, abstract; its formula is not published)."""


class Sample(NamedTuple):
    """Medians over seeds, in the order of `FIGURES`."""

    goodput: float
    good_share: float
    refused: float
    ttft_p95: float
    tpot_p50: float
    tpot_p99: float
    hit_ratio: float
    preemptions: float


FIGURES = (
    ("goodput", "requests/s", "higher"),
    ("good_share", "%", "higher"),
    ("refused", "%", "lower"),
    ("ttft_p95", "ms", "lower"),
    ("tpot_p50", "ms", "lower"),
    ("tpot_p99", "ms", "lower"),
    ("hit_ratio", "%", "higher"),
    ("preemptions", "requests", "lower"),
)


def make_spec() -> Spec:
    """One pool of each role under all models."""
    limits = Limits(queue_s=QUEUE_S)
    return Spec(
        family=Family(base="Qwen/Qwen3-8B", max_model_len=131_072),
        prefill={"p": Pool(weights="Qwen/Qwen3-8B", replicas=_fixed(PREFILL_REPLICAS))},
        decode={"d": Pool(weights="Qwen/Qwen3-8B", replicas=_fixed(DECODE_REPLICAS), tpot_ms=SLO.tpot_ms)},
        models={model: Model(prefill="p", decode="d", limits=limits) for model in MODELS},
    )


def _fixed(number: int) -> Replicas:
    return Replicas(min=number, max=number)


def run_once(trace: Path, speed: float, name: str, seed: int) -> Summary:
    """One policy pair under one load."""
    pair = PAIRS[name]
    config = WorkloadConfig(kind="mooncake", trace=str(trace), speed=speed, duration_s=TRACE_S)
    options = Options(policies={Role.PREFILL: pair.prefill, Role.DECODE: pair.decode}, oracle=name == ORACLE)
    outcome = simulate(
        arrange(make_spec(), "spec"),
        make_workload(config, MODELS),
        Hardware(),
        directory=Path(),
        seed=seed,
        options=options,
    )
    return summarize(outcome, SLO)


def sample(summaries: Sequence[Summary]) -> Sample:
    """The medians of several seeds."""

    def figures(each: Summary) -> tuple[float, ...]:
        return (
            each.goodput_per_s,
            each.good_share * 100,
            each.refused_share * 100,
            each.ttft_ms.p95 or 0.0,
            each.tpot_ms.p50 or 0.0,
            each.tpot_ms.p99 or 0.0,
            each.prefix_hit_ratio * 100,
            float(sum(pool.preemptions for pool in each.pools)),
        )

    return Sample(*(statistics.median(column) for column in zip(*map(figures, summaries), strict=True)))


def metrics_of(speed: float, samples: dict[str, Sample]) -> dict[str, Metric]:
    """All figures of one load, and the two that have goals: ours against the best of the others in
    goodput, and against the oracle in p99 TPOT."""
    load = f"x{speed:g}"
    ours, oracle = samples[OURS], samples[ORACLE]
    best = max(each.goodput for name, each in samples.items() if name not in (OURS, ORACLE))
    metrics = {
        f"{load}_goodput_over_best_other": Metric(
            value=ours.goodput / best, unit="ratio", goal=1.0, better="higher", peer=best
        ),
        f"{load}_tpot_p99_over_oracle": Metric(
            value=ours.tpot_p99 / oracle.tpot_p99,
            unit="ratio",
            goal=1.1,
            better="lower",
            peer=oracle.tpot_p99,
        ),
    }
    for name, each in samples.items():
        for (key, unit, better), value in zip(FIGURES, each, strict=True):
            metric = Metric(value=value, unit=unit, better="higher" if better == "higher" else "lower")
            metrics[f"{load}_{name.replace(' + ', '_').replace(' ', '_')}_{key}"] = metric
    return metrics


def _table(console: Console, speed: float, samples: dict[str, Sample]) -> None:
    table = Table(title=f"{speed:g} times the trace's load", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("policies (prefill, decode)", no_wrap=True)
    for key, unit, _ in FIGURES:
        table.add_column(f"{key} ({unit})", justify="right")
    for name, each in samples.items():
        table.add_row(name, *(f"{value:,.1f}" for value in each))
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; a missed goal is a result, not a failure."""
    top = argparse.ArgumentParser(prog="benchmarks.mooncake", description="Policies on Mooncake's trace.")
    top.add_argument("--trace", type=Path, required=True, help="Mooncake's conversation trace (JSONL)")
    top.add_argument("--speeds", type=float, nargs="+", default=[2.0, 3.0, 4.0, 5.0], help="times its load")
    top.add_argument("--seeds", type=int, default=3, help="medians over so many (%(default)s)")
    top.add_argument("--output", type=Path, default=RESULTS / "mooncake.json", help="JSON file to write")
    args = top.parse_args(argv)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    metrics: dict[str, Metric] = {}
    for speed in args.speeds:
        samples = {
            name: sample([run_once(args.trace, speed, name, seed) for seed in range(args.seeds)])
            for name in PAIRS
        }
        metrics |= metrics_of(speed, samples)
        _table(console, speed, samples)
    for key, metric in metrics.items():
        if metric.goal is not None:
            console.print(
                f"{key}: {metric.value:.3f}, goal {metric.goal:g}: {'met' if metric.met else 'MISSED'}"
            )
    write_json(make_report(args.seeds, metrics), args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
