"""Policies side by side, over one cluster in virtual time. `python -m benchmarks.policies`

The router's own code (board, prefix index, policies, admission, pipeline) leads requests over `sim` engines:
four prefill and four decode replicas under eight models. Nothing is timed on this machine, so the figures
are the same wherever it runs; they say how policies compare, not how fast a cluster is.

- `model_ttft_p95`: of each model, then the median over models: what a quiet one sees beside a noisy one.
- Goodput: requests per second that meet both targets, TTFT and TPOT.
- Fairness: Jain's index over models of tokens served while requests arrive, each over what max-min
  fairness would have given the model of the same total. 1: nobody got less because somebody asked for more.
- Errors: refused by admission, or failed.
- Several routers see their own requests and the replicas' reports. With `kv_events` replicas also tell all of
  them which prompt blocks they keep; without, a router knows only of prefixes that it sent somewhere itself.

What this cannot show: what a decision costs (`benchmarks.router`), and engines whose steps are not linear in
their batch and context.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.policy_cluster import TPOT_MS, TTFT_MS, Choice, RouterProcess, SimCluster, make_spec
from benchmarks.policy_workloads import MODELS, WORKLOADS, Arrival, Workload
from benchmarks.report import RESULTS, Metric, make_report, write_json
from cluster.percentiles import percentile
from deployments.sim_stream import SimSampling
from heliostat.errors import RequestError
from router.pipeline import GenerateRequest
from router.trace import Trace
from simulator.virtual_time import run

OURS = "heliostat"
CHOICES = {
    OURS: Choice("time_to_kv", "marginal_latency"),
    "no_admission": Choice("time_to_kv", "marginal_latency", admission=False),
    "fewest_tokens": Choice("fewest_queued_tokens", "least_load"),
    "least_requests": Choice("least_requests", "least_requests"),
    "power_of_two": Choice("power_of_two", "power_of_two"),
    "round_robin": Choice("round_robin", "round_robin"),
    "random": Choice("random", "random"),
    "sticky_session": Choice("sticky_session", "sticky_session"),
    "kv+least_load": Choice("time_to_kv", "least_load"),
    "kv+least_requests": Choice("time_to_kv", "least_requests"),
    "kv+power_of_two": Choice("time_to_kv", "power_of_two"),
    "kv+round_robin": Choice("time_to_kv", "round_robin"),
}
"""Pairs of policies. Those with `kv+` differ from ours in decode alone: a worse prefill policy holds requests
back from the decode pool, which makes its TPOT look better, so TPOT is compared among these."""

TIE = 0.05
"""Figures within this share of the best one are a tie."""

TIE_POINTS = 1.0
"""Error rates are a tie within so many percentage points: among so few errors a share would be chance."""

ROUTERS_WORKLOADS = ("zipf", "bursts", "noisy")


@dataclass(slots=True)
class _Log:
    """What became of the requests of one run."""

    ttft_ms: dict[str, list[float]] = field(default_factory=lambda: {model: [] for model in MODELS})
    tpot_ms: list[float] = field(default_factory=list)
    good: int = 0
    errors: int = 0
    served: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODELS, 0))


class Sample(NamedTuple):
    """One run's figures, in the order of `FIGURES`."""

    ttft_p95: float
    model_ttft_p95: float
    tpot_p95: float
    goodput: float
    error_rate: float
    jain: float


class Figure(NamedTuple):
    """How a field of `Sample` is read."""

    key: str
    unit: str
    better: Literal["higher", "lower"]


FIGURES = (
    Figure("ttft_p95", "ms", "lower"),
    Figure("model_ttft_p95", "ms", "lower"),
    Figure("tpot_p95", "ms", "lower"),
    Figure("goodput", "requests/s", "higher"),
    Figure("error_rate", "%", "lower"),
    Figure("jain", "index", "higher"),
)


def fair_shares(demands: Mapping[str, float], total: float) -> dict[str, float]:
    """Max-min fairness: nobody gets more than they ask for, and what is left is split evenly."""
    shares: dict[str, float] = {}
    left = total
    for number, (model, demand) in enumerate(sorted(demands.items(), key=lambda item: item[1])):
        shares[model] = min(demand, left / (len(demands) - number))
        left -= shares[model]
    return shares


def jain(values: Sequence[float]) -> float:
    """1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


async def _serve(router: RouterProcess, number: int, arrival: Arrival, end_s: float, log: _Log) -> None:
    now = asyncio.get_running_loop().time
    sampling = msgspec.msgpack.encode(SimSampling(max_tokens=arrival.output_tokens))
    request = GenerateRequest(
        f"r{number}", arrival.model, arrival.token_ids, sampling, Trace(), arrival.output_tokens,
        session=arrival.session,
    )  # fmt: skip
    first_s = 0.0
    try:
        if router.admission is not None:
            router.admission.check(arrival.model)
        async with aclosing(router.pipeline.generate(request)) as frames:
            async for _ in frames:
                first_s = first_s or now()
                if now() <= end_s:
                    log.served[arrival.model] += 1
    except RequestError:
        log.errors += 1
        return
    ttft_ms = (first_s - arrival.at_s) * 1e3
    tpot_ms = (now() - first_s) * 1e3 / (arrival.output_tokens - 1)
    log.ttft_ms[arrival.model].append(ttft_ms)
    log.tpot_ms.append(tpot_ms)
    log.good += ttft_ms <= TTFT_MS and tpot_ms <= TPOT_MS


@lru_cache(maxsize=16)
def _arrivals(workload: Workload, seed: int) -> list[Arrival]:
    return workload.arrivals(seed)


async def _drive(workload: Workload, choice: Choice, routers: int, seed: int) -> Sample:
    arrivals = _arrivals(workload, seed)
    cluster = SimCluster(make_spec(MODELS), choice, routers=routers, slow=workload.slow, seed=seed)
    beat = asyncio.create_task(cluster.beat())
    end_s, log = arrivals[-1].at_s, _Log()
    async with asyncio.TaskGroup() as tasks:
        for number, arrival in enumerate(arrivals):
            await asyncio.sleep(arrival.at_s - asyncio.get_running_loop().time())
            router = cluster.routers[number % routers]
            tasks.create_task(_serve(router, number, arrival, end_s, log))
    beat.cancel()
    demands = dict.fromkeys(MODELS, 0.0)
    for arrival in arrivals:
        demands[arrival.model] += arrival.output_tokens
    shares = fair_shares(demands, sum(log.served.values()))
    return Sample(
        percentile([ttft for model in log.ttft_ms.values() for ttft in model], 95),
        median(percentile(model, 95) for model in log.ttft_ms.values() if model),
        percentile(log.tpot_ms, 95),
        log.good / end_s,
        100.0 * log.errors / len(arrivals),
        jain([log.served[model] / share for model, share in shares.items() if share]),
    )


def sample(workload: Workload, choice: Choice, *, routers: int = 1, seeds: Sequence[int]) -> Sample:
    """The medians over the seeds, figure by figure."""
    samples = [run(_drive(workload, choice, routers, seed)) for seed in seeds]
    return Sample(*(round(median(figures), 4) for figures in zip(*samples, strict=True)))


def metrics_of(workload: Workload, samples: Mapping[str, Sample]) -> dict[str, Metric]:
    """Ours against the best of the others, figure by figure: to be no worse than a tie is the goal."""
    metrics: dict[str, Metric] = {}
    for at, figure in enumerate(FIGURES):
        peers = (choice for choice in CHOICES if figure.key != "tpot_p95" or choice.startswith("kv+"))
        others = [samples[name][at] for name in peers if name not in (OURS, "no_admission")]
        best = min(others) if figure.better == "lower" else max(others)
        goal = best * (1.0 + TIE if figure.better == "lower" else 1.0 - TIE)
        if figure.key == "error_rate":
            goal = best + TIE_POINTS
        metrics[f"{workload.name}_{figure.key}"] = Metric(
            value=samples[OURS][at], unit=figure.unit, goal=round(goal, 4), better=figure.better, peer=best
        )
        for name, found in samples.items():
            if name != OURS:
                metrics[f"{workload.name}_{figure.key}_{name}"] = Metric(
                    value=found[at], unit=figure.unit, better=figure.better
                )
    return metrics


def _table(console: Console, title: str, rows: Mapping[str, Sample]) -> None:
    """One row per choice; the best of each column is bold."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for figure in FIGURES:
        table.add_column(f"{figure.key}\n{figure.unit}", justify="right")
    columns = list(zip(*rows.values(), strict=True))
    best = [
        min(column) if figure.better == "lower" else max(column)
        for figure, column in zip(FIGURES, columns, strict=True)
    ]
    for name, row in rows.items():
        cells = (
            f"[bold]{value:,.2f}[/bold]" if value == top else f"{value:,.2f}"
            for value, top in zip(row, best, strict=True)
        )
        table.add_row(name, *cells)
    console.print(table)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="benchmarks.policies", description="Routing policies in virtual time.")
    top.add_argument("--seeds", type=int, default=7, help="medians over so many (%(default)s)")
    top.add_argument("--workloads", nargs="+", choices=[w.name for w in WORKLOADS], help="default: all")
    top.add_argument("--routers", type=int, nargs="*", default=[1, 2, 4], help="router replicas (1 2 4)")
    top.add_argument("--output", type=Path, default=RESULTS / "policies.json", help="JSON file to write")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; a missed goal is a result, not a failure."""
    args = parser().parse_args(argv)
    seeds = range(args.seeds)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    metrics: dict[str, Metric] = {}
    for workload in WORKLOADS:
        if args.workloads and workload.name not in args.workloads:
            continue
        samples = {name: sample(workload, choice, seeds=seeds) for name, choice in CHOICES.items()}
        metrics |= metrics_of(workload, samples)
        _table(console, f"{workload.name}: {workload.summary}", samples)
        missed = [key for key, metric in metrics.items() if metric.met is False and workload.name in key]
        console.print(f"ours is worse than a tie in: {', '.join(missed) or 'nothing'}\n")
    variants = {"": CHOICES[OURS], "_kv_events": CHOICES[OURS]._replace(kv_events=True)}
    for workload in WORKLOADS:
        if workload.name not in (args.workloads or ROUTERS_WORKLOADS) or not args.routers:
            continue
        rows = {
            f"{routers}{suffix}": sample(workload, choice, routers=routers, seeds=seeds)
            for suffix, choice in variants.items()
            for routers in args.routers
        }
        _table(console, f"{workload.name}, {OURS} in several routers that do not see each other", rows)
        for routers, row in rows.items():
            for figure, value in zip(FIGURES, row, strict=True):
                key = f"{workload.name}_{figure.key}_routers_{routers}"
                metrics[key] = Metric(value=value, unit=figure.unit, better=figure.better)
    write_json(make_report(args.seeds, metrics), args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
