"""What autoscaling saves and what it costs: SLO attainment and GPU-hours on Mooncake's conversation trace.

    python -m benchmarks.autoscaling --trace mooncake_conversation.jsonl

Qwen3-8B on simulated H100s, eight models on one prefill pool and one decode pool; a replica takes 60 s to
start. Pools that scale begin with one replica each; requests of the first tenth of the run are left out, its
GPU-hours are not. Beside ours are two fixed clusters and Serve's default policy:

    peak           the smallest fixed cluster that serves almost as many requests well as a huge one does
    mean           a fixed cluster for as many GPU-hours as ours took, split between the pools as ours were
    serve          Serve's policy as it comes: two requests per replica
    serve_tuned    Serve's policy with each pool's target set to what the replicas of `peak` hold on average
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.autoscaling_load import MAX_MODEL_LEN, load
from benchmarks.autoscaling_serve import ServeScaler
from benchmarks.report import RESULTS, Metric, make_report, write_json
from heliostat.spec import Family, Limits, Model, Pool, Replicas, Spec
from heliostat.wire import PoolKey, Role
from simulator.profile import Hardware
from simulator.router import Options
from simulator.run import simulate
from simulator.scaling import OwnScaler, Scaling
from simulator.slo import Slo
from simulator.summary import Summary, summarize
from simulator.topology import arrange

MODELS = tuple(f"m{number}" for number in range(8))
PREFILL, DECODE = (Role.PREFILL, "p"), (Role.DECODE, "d")
MOST = {PREFILL: 24, DECODE: 12}
SLO = Slo(ttft_ms=2000.0, tpot_ms=25.0)
START_S = 60.0
LOADS = ("x1", "x2", "bursts")
POLICIES = ("ours", "peak", "mean", "serve", "serve_tuned")
ALMOST = 0.98
"""The share of what a huge cluster serves well that is enough for `peak`."""

PATIENT = Limits(queue_s=36_000.0, max_queued=1_000_000)
"""Whoever comes waits: what a cluster cannot carry shows as missed targets, not as missing requests."""

Sizes = Mapping[PoolKey, int]


@dataclass(frozen=True)
class Case:
    """One run. With `sizes` the cluster is fixed; else it scales, with Serve's policy where `targets` are
    given (an empty mapping: its defaults)."""

    trace: Path
    load: str
    seed: int
    duration_s: float | None
    sizes: Sizes | None = None
    targets: Mapping[PoolKey, float] | None = None


class Ran(NamedTuple):
    """One run's figures; requests per replica are the mean over the run."""

    summary: Summary
    sizes: dict[PoolKey, float]
    requests_per_replica: dict[PoolKey, float]


def make_spec(sizes: Sizes | None) -> Spec:
    """Two pools under all models; fixed where sizes are given."""

    def pool(key: PoolKey, **target: float) -> Pool:
        least, most = (sizes[key], sizes[key]) if sizes else (1, MOST[key])
        return Pool(weights="Qwen/Qwen3-8B", replicas=Replicas(min=least, max=most), **target)  # type: ignore[arg-type]

    return Spec(
        family=Family(base="Qwen/Qwen3-8B", max_model_len=MAX_MODEL_LEN),
        prefill={"p": pool(PREFILL, ttft_ms=SLO.ttft_ms)},
        decode={"d": pool(DECODE, tpot_ms=SLO.tpot_ms)},
        models={model: Model(prefill="p", decode="d", limits=PATIENT) for model in MODELS},
    )


def run(case: Case) -> Ran:
    """Simulate one case. Raises SpecError for a bad trace."""
    make = OwnScaler if case.targets is None else partial(ServeScaler, targets=case.targets)
    outcome = simulate(
        arrange(make_spec(case.sizes), "spec"),
        load(case.trace, case.load, MODELS, case.duration_s),
        Hardware(),
        directory=Path(),
        seed=case.seed,
        options=Options(scaling=Scaling(make=make, start_s=START_S)),
    )
    pools = {(pool.role, pool.name): pool for pool in outcome.pools.values()}
    return Ran(
        summarize(outcome, SLO),
        {key: pool.replica_s / outcome.duration_s for key, pool in pools.items()},
        {
            key: statistics.fmean(a + b for a, b in zip(pool.running, pool.waiting, strict=True))
            / statistics.fmean(pool.sizes)
            for key, pool in pools.items()
        },
    )


def plan_peak(case: Case, huge: Ran) -> dict[PoolKey, int]:
    """The smallest fixed cluster that is almost as good as a huge one, found pool by pool by halving."""
    sizes = dict(MOST)
    enough = ALMOST * huge.summary.good_share
    for key in (PREFILL, DECODE):
        low, high = 1, MOST[key]
        while low < high:
            middle = (low + high) // 2
            good = run(_with(case, sizes={**sizes, key: middle})).summary.good_share
            low, high = (low, middle) if good >= enough else (middle + 1, high)
        sizes[key] = high
    return sizes


def of_load(trace: Path, name: str, seeds: int, duration_s: float | None) -> dict[str, list[Ran]]:
    """All policies on one load, a run per seed. The planner sees the first seed only."""
    cases = [Case(trace, name, seed, duration_s) for seed in range(seeds)]
    huge = [run(_with(case, sizes=MOST)) for case in cases]
    peak = plan_peak(cases[0], huge[0])
    found = {"ours": [run(case) for case in cases]}
    found["peak"] = [run(_with(case, sizes=peak)) for case in cases]
    took = {key: statistics.median(ran.sizes[key] for ran in found["ours"]) for key in MOST}
    mean = {key: max(1, round(value)) for key, value in took.items()}
    found["mean"] = [run(_with(case, sizes=mean)) for case in cases]
    found["serve"] = [run(_with(case, targets={})) for case in cases]
    held = {key: statistics.median(ran.requests_per_replica[key] for ran in found["peak"]) for key in MOST}
    found["serve_tuned"] = [run(_with(case, targets=held)) for case in cases]
    found["huge"] = huge
    return found


def metrics_of(name: str, found: Mapping[str, Sequence[Ran]]) -> dict[str, Metric]:
    """Medians over seeds, and the comparisons that have goals."""

    def share(policy: str) -> float:
        return statistics.median(ran.summary.good_share for ran in found[policy]) * 100

    def hours(policy: str) -> float:
        return statistics.median(ran.summary.gpu_hours for ran in found[policy])

    metrics = {
        f"{name}_attainment_over_peak": Metric(
            value=share("ours") / share("peak"), unit="ratio", goal=0.95, better="higher"
        ),
        f"{name}_gpu_hours_over_peak": Metric(
            value=hours("ours") / hours("peak"), unit="ratio", goal=1.0, better="lower"
        ),
        f"{name}_attainment_over_serve": Metric(
            value=share("ours") / share("serve"), unit="ratio", goal=1.0, better="higher"
        ),
        f"{name}_gpu_hours_over_serve": Metric(
            value=hours("ours") / hours("serve"), unit="ratio", goal=1.0, better="lower"
        ),
    }
    for policy, runs in found.items():
        summaries = [ran.summary for ran in runs]
        figures: tuple[tuple[str, str, float, bool], ...] = (
            ("attainment", "%", share(policy), True),
            ("gpu_hours", "h", hours(policy), False),
            ("ttft_p95", "ms", statistics.median(each.ttft_ms.p95 or 0.0 for each in summaries), False),
            ("tpot_p95", "ms", statistics.median(each.tpot_ms.p95 or 0.0 for each in summaries), False),
            ("prefill_mean", "replicas", statistics.median(ran.sizes[PREFILL] for ran in runs), False),
            ("decode_mean", "replicas", statistics.median(ran.sizes[DECODE] for ran in runs), False),
            ("resized", "times", statistics.median(each.resized for each in summaries), False),
        )
        for key, unit, value, up in figures:
            better = "higher" if up else "lower"
            metrics[f"{name}_{policy}_{key}"] = Metric(value=round(value, 4), unit=unit, better=better)
    return metrics


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; a missed goal is a result, not a failure."""
    top = argparse.ArgumentParser(prog="benchmarks.autoscaling", description="Pools that scale, on a trace.")
    top.add_argument("--trace", type=Path, required=True, help="Mooncake's conversation trace (JSONL)")
    top.add_argument("--loads", nargs="+", default=list(LOADS), help="x1, x2, … or bursts (%(default)s)")
    top.add_argument("--seeds", type=int, default=3, help="medians over so many (%(default)s)")
    top.add_argument("--duration", type=float, help="seconds of the trace's own time (default: all)")
    top.add_argument("--processes", type=int, default=2, help="loads at a time (%(default)s)")
    top.add_argument("--output", type=Path, default=RESULTS / "autoscaling.json", help="JSON file to write")
    args = top.parse_args(argv)
    console = Console() if sys.stdout.isatty() else Console(width=140)
    work = partial(of_load, args.trace, seeds=args.seeds, duration_s=args.duration)
    if args.processes == 1:
        every = [work(name) for name in args.loads]
    else:
        with ProcessPoolExecutor(args.processes) as pool:
            every = list(pool.map(work, args.loads))
    metrics: dict[str, Metric] = {}
    for name, found in zip(args.loads, every, strict=True):
        metrics |= metrics_of(name, found)
        _table(console, name, metrics, tuple(found))
    for key, metric in metrics.items():
        if metric.goal is not None:
            verdict = "met" if metric.met else "MISSED"
            console.print(f"{key}: {metric.value:.3f}, goal {metric.goal:g}: {verdict}", highlight=False)
    write_json(make_report(args.seeds, metrics), args.output)
    return 0


def _with(case: Case, **changes: object) -> Case:
    return Case(**{**vars(case), **changes})


def _table(console: Console, name: str, metrics: Mapping[str, Metric], policies: Sequence[str]) -> None:
    table = Table(title=f"Mooncake {name}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("policy", no_wrap=True)
    figures = ("attainment", "gpu_hours", "ttft_p95", "tpot_p95", "prefill_mean", "decode_mean", "resized")
    for figure in figures:
        table.add_column(f"{figure} ({metrics[f'{name}_ours_{figure}'].unit})", justify="right")
    for policy in policies:
        table.add_row(policy, *(f"{metrics[f'{name}_{policy}_{figure}'].value:,.1f}" for figure in figures))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
