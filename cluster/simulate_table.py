"""Simulated topologies side by side in a terminal."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from cluster.simulate_report import Cell, Report, middle
from cluster.tables import figures_table
from simulator.summary import PoolSummary, Summary

Read = Callable[[Summary], float | None]

_ROWS: tuple[tuple[str, str, Read], ...] = (
    ("GPUs", "{:.0f}", lambda s: s.gpus),
    ("GPU-hours", "{:.2f}", lambda s: s.gpu_hours),
    ("requests", "{:.0f}", lambda s: s.requests),
    ("refused (%)", "{:.1f}", lambda s: s.refused_share * 100),
    ("unfinished sessions", "{:.0f}", lambda s: s.unfinished),
    ("TTFT p50 (ms)", "{:.0f}", lambda s: s.ttft_ms.p50),
    ("TTFT p95 (ms)", "{:.0f}", lambda s: s.ttft_ms.p95),
    ("TTFT p99 (ms)", "{:.0f}", lambda s: s.ttft_ms.p99),
    ("TPOT p50 (ms)", "{:.2f}", lambda s: s.tpot_ms.p50),
    ("TPOT p95 (ms)", "{:.2f}", lambda s: s.tpot_ms.p95),
    ("TPOT p99 (ms)", "{:.2f}", lambda s: s.tpot_ms.p99),
    ("end to end p50 (ms)", "{:.0f}", lambda s: s.end_to_end_ms.p50),
    ("end to end p95 (ms)", "{:.0f}", lambda s: s.end_to_end_ms.p95),
    ("session p95 (ms)", "{:.0f}", lambda s: s.session_ms.p95),
    ("output (tokens/s)", "{:.0f}", lambda s: s.output_tokens_per_s),
    ("output per GPU (tokens/s)", "{:.1f}", lambda s: s.output_tokens_per_s_per_gpu),
    ("goodput (requests/s)", "{:.2f}", lambda s: s.goodput_per_s),
    ("goodput per GPU (requests/s)", "{:.3f}", lambda s: s.goodput_per_s_per_gpu),
    ("within the SLO (%)", "{:.1f}", lambda s: s.good_share * 100),
    ("prefix hits (% of prompt tokens)", "{:.1f}", lambda s: s.prefix_hit_ratio * 100),
    ("handoffs (GiB)", "{:.1f}", lambda s: s.handoff_gib),
)


def render_report(report: Report, console: Console) -> None:
    """Print a table for each load, and the pools and models where there is one load only."""
    for load in report.loads:
        cells = report.at(load)
        console.print(_side_by_side(report, load, cells))
    if len(report.loads) == 1:
        console.print(_pools(report.at(report.loads[0])))
        console.print(_models(report.at(report.loads[0])))
    for search in report.searches:
        console.print(search.remark, highlight=False, markup=False)
        if search.replicas:
            sizes = ", ".join(f"{pool} {number}" for pool, number in search.replicas.items())
            console.print(f"  replicas: {sizes}", highlight=False, markup=False)


def _side_by_side(report: Report, load: float, cells: list[Cell]) -> Table:
    """Behind each figure of a topology after the first: its ratio to the first's, round by round."""
    first = cells[0].rounds
    rounds = f", medians of {len(first)} rounds" if len(first) > 1 else ""
    title = f"{first[0].workload}\n{report.load} {load:g}; {report.gpu}; SLO: {first[0].slo}{rounds}"
    table = figures_table(title, "", *(cell.topology for cell in cells))
    for name, form, read in _ROWS:
        row = []
        for cell in cells:
            value = middle([read(summary) for summary in cell.rounds])
            ratio = "" if cell is cells[0] else _ratio(cell.rounds, first, read)
            row.append("-" if value is None else form.format(value) + ratio)
        table.add_row(name, *row)
    return table


def _ratio(rounds: tuple[Summary, ...], first: tuple[Summary, ...], read: Read) -> str:
    ratios: list[float | None] = []
    for mine, base in zip(rounds, first, strict=True):
        value, to = read(mine), read(base)
        ratios.append(value / to if value is not None and to else None)
    ratio = middle(ratios)
    return "" if ratio is None else f" ({ratio:.2f}x)"


def _pools(cells: list[Cell]) -> Table:
    """Of the first round."""
    names = ("replicas", "busy", "batch", "waiting", "KV, peak", "preempted")
    table = figures_table("Pools", "topology", "pool", *names, text_columns=2)
    for cell in cells:
        for pool in cell.rounds[0].pools:
            table.add_row(
                cell.topology,
                f"{pool.role}.{pool.name}",
                _replicas(pool),
                f"{pool.utilization:.0%}",
                f"{pool.mean_batch:.1f}" if pool.mean_batch else "-",
                f"{pool.waiting_mean:.1f}",
                f"{pool.kv_use_mean:.0%}, {pool.kv_use_peak:.0%}",
                f"{pool.preemptions}",
            )
    return table


def _replicas(pool: PoolSummary) -> str:
    """The number; of a pool that scaled the mean, and the most at a time."""
    scaled = pool.replicas_mean != pool.replicas
    return f"{pool.replicas_mean:.1f}, {pool.replicas}" if scaled else f"{pool.replicas}"


def _models(cells: list[Cell]) -> Table:
    """Of the first round."""
    names = ("requests", "refused", "TTFT p95", "TPOT p50", "in SLO")
    table = figures_table("Models", "topology", "model", *names, text_columns=2)
    for cell in cells:
        for model in cell.rounds[0].models:
            table.add_row(
                cell.topology,
                model.name,
                f"{model.requests}",
                f"{model.refused}",
                "-" if model.ttft_p95_ms is None else f"{model.ttft_p95_ms:.0f}",
                "-" if model.tpot_p50_ms is None else f"{model.tpot_p50_ms:.2f}",
                f"{model.good_share:.0%}",
            )
    return table
