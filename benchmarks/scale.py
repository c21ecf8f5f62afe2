"""How large a cluster may get: the simulator's speed, what routers lose by not talking, what breaks first.

    python -m benchmarks.scale            # some 20 minutes of one core; writes benchmarks/results/scale.json
    python -m benchmarks.scale --quick    # a minute, small clusters, writes nothing
    python -m benchmarks.scale --part local --out FILE

Three parts: `speed` (1,000 replicas, 10 minutes of virtual time), `local` (decode replicas x routers x
policies, at one load per replica), `costs` (what each router pays for the size of its cluster).
"""

import argparse
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import scale_runs
from benchmarks.report import RESULTS, Metric, Report, make_report, write_json
from benchmarks.scale_costs import Costs, measure_costs
from benchmarks.scale_parts import BEATS_S, KEYS, SIDES, Plan, limits_table
from benchmarks.scale_runs import CHAT, Knowledge, Run, cluster, knowledge, prefill_capacity
from simulator.router import Options

OUT = RESULTS / "scale.json"
ROUTER = RESULTS / "router.json"

FULL = Plan()
QUICK = Plan(
    speed_replicas=20, speed_s=20.0, sizes={10: (30.0, 1)}, routers=(1, 4), beat_size=10, cost_rounds=1,
    cost_replicas=(10, 100), index_blocks=10_000,
)  # fmt: skip
"""Shows that everything runs; its figures mean nothing."""


def speed(plan: Plan, console: Console) -> dict[str, Metric]:
    """One router before `speed_replicas`, half of them of each role, at 60 % of the prefill pool."""
    half = plan.speed_replicas // 2
    rate = plan.speed_load * prefill_capacity(half)
    options = Options(kv_events=True)
    done = scale_runs.run(cluster(half, half), rate, plan.speed_s, CHAT, options)
    metrics = speed_metrics(done, plan)
    _show(console, f"{2 * half} replicas, {plan.speed_s:g} s at {rate:.0f} requests/s", metrics)
    return metrics


def speed_metrics(done: Run, plan: Plan) -> dict[str, Metric]:
    """Of the run in `speed`; only the full size has a goal."""
    summary = done.summary
    goal = 120.0 if plan.speed_replicas >= 1000 and plan.speed_s >= 600 else None
    values = {
        "wall": Metric(value=summary.wall_s, unit="s", goal=goal, better="lower"),
        "cpu": Metric(value=done.cpu_s, unit="CPU s", better="lower"),
        "requests": Metric(value=done.simulated, unit="requests", better="higher"),
        "requests_per_cpu_s": Metric(value=done.simulated / done.cpu_s, unit="requests/s", better="higher"),
        "virtual_over_wall": Metric(value=summary.elapsed_s / summary.wall_s, unit="ratio", better="higher"),
        "good_share": Metric(value=summary.good_share, unit="share", better="higher"),
        "ttft_p50": Metric(value=summary.ttft_ms.p50 or 0.0, unit="ms", better="lower"),
        "tpot_p99": Metric(value=summary.tpot_ms.p99 or 0.0, unit="ms", better="lower"),
    }
    for pool in summary.pools:
        # Over the time in which requests arrive; the drain, in which nobody does, would dilute it.
        busy = pool.utilization * summary.elapsed_s / summary.duration_s
        values[f"{pool.role.value}_utilization"] = Metric(value=busy, unit="share", better="higher")
    return {f"speed_{key}": metric for key, metric in values.items()}


def local(plan: Plan, console: Console) -> dict[str, Metric]:
    """Sizes x routers x policies, then the beat; each against one router with the same policy."""
    metrics: dict[str, Metric] = {}
    for size, (duration_s, seeds) in plan.sizes.items():
        found: dict[tuple[str, int], Knowledge] = {}
        for routers in plan.routers:
            for side, (policy, oracle) in SIDES.items():
                options = Options(routers=routers, oracle=oracle, kv_events=False)
                found[side, routers] = one = knowledge(
                    size, policy, options, load=plan.load, duration_s=duration_s, seeds=seeds
                )
                metrics |= knowledge_metrics(f"local_{size}x{routers}_{side}", one, found[side, 1])
                _progress(console, f"{size} x {routers} {side}", one)
        _compare(console, size, found)
    base: Knowledge | None = None
    for beat_s in BEATS_S:
        options = Options(routers=4, beat_s=beat_s, kv_events=False)
        duration_s, seeds = plan.sizes[plan.beat_size]
        policy = SIDES["ours"][0]
        one = knowledge(plan.beat_size, policy, options, load=plan.load, duration_s=duration_s, seeds=seeds)
        base = base or one
        metrics |= knowledge_metrics(f"beat_{round(beat_s * 1000)}ms", one, base)
        _progress(console, f"beat {beat_s:g} s", one)
    return metrics


def knowledge_metrics(name: str, one: Knowledge, reference: Knowledge) -> dict[str, Metric]:
    """All figures of one setting; `peer` is the same with one router (beats: with production's)."""
    metrics = {}
    for entry in fields(one):
        unit, better = KEYS[entry.name]
        value, peer = getattr(one, entry.name), getattr(reference, entry.name)
        metrics[f"{name}_{entry.name}"] = Metric(value=value, unit=unit, better=better, peer=peer)
    return metrics


def _progress(console: Console, what: str, one: Knowledge) -> None:
    figures = f"TPOT p99 {one.tpot_p99:.1f} ms, TTFT p95 {one.ttft_p95:.0f} ms, good {one.good_share:.3f}"
    console.print(f"{what}: {figures}", highlight=False)


def _compare(console: Console, size: int, found: dict[tuple[str, int], Knowledge]) -> None:
    table = _table(f"{size} decode replicas", "policy", "routers", *KEYS)
    for (side, routers), one in found.items():
        table.add_row(side, f"{routers}", *(f"{value:,.3f}" for value in astuple(one)))
    console.print(table)


def costs(plan: Plan, console: Console) -> dict[str, Metric]:
    """What is measured, and the clusters at which it is too much."""
    tokens_per_s = Report.model_validate_json(ROUTER.read_text()).metrics["tokens_256_streams"].value
    found = measure_costs(plan.cost_replicas, plan.cost_rounds, 1e6 / tokens_per_s, plan.index_blocks)
    metrics = cost_metrics(found)
    _show(console, "What a router pays", metrics)
    limits, table = limits_table(found)
    console.print(table)
    return metrics | limits


def cost_metrics(found: Costs) -> dict[str, Metric]:
    """Each cost by its name; bytes as bytes, all else in µs of one core."""
    values = {f"decision_{number}_replicas": (value, "µs") for number, value in found.decision_us.items()}
    for name in ("message", "frame", "block", "send", "token"):
        values[name] = (float(getattr(found, f"{name}_us")), "µs")
    values |= {"block_memory": (found.block_bytes, "bytes"), "replica_memory": (found.replica_bytes, "bytes")}
    return {f"cost_{key}": Metric(value=v, unit=unit, better="lower") for key, (v, unit) in values.items()}


def _show(console: Console, title: str, metrics: dict[str, Metric]) -> None:
    table = _table(title, "figure", "unit", "value", "goal")
    for key, metric in metrics.items():
        met = "" if metric.met is None else f"{metric.goal:g} {'met' if metric.met else 'MISSED'}"
        table.add_row(key, metric.unit, f"{metric.value:,.3f}", met)
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    return table


PARTS = {"speed": speed, "local": local, "costs": costs}


def main(arguments: Sequence[str] | None = None) -> None:
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=about)
    parser.add_argument("--part", choices=tuple(PARTS), help="only this part")
    parser.add_argument("--quick", action="store_true", help="small clusters, to see that it runs")
    parser.add_argument("--out", type=Path, help=f"where the figures go; a whole run: {OUT.name}")
    options = parser.parse_args(arguments)
    plan, console = (QUICK if options.quick else FULL), Console()
    metrics: dict[str, Metric] = {}
    for name, part in PARTS.items():
        if options.part in (None, name):
            metrics |= part(plan, console)
    out = options.out or (None if options.quick or options.part else OUT)
    if out is not None:
        write_json(make_report(plan.rounds, metrics), out)


if __name__ == "__main__":
    main()
