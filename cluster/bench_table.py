"""A benchmark's report for people."""

from rich.console import Console
from rich.table import Table

from cluster.bench_figures import Figures, Slo
from cluster.bench_report import Report
from cluster.percentiles import Percentiles
from cluster.tables import figures_table
from cluster.tame import tame


def render_report(report: Report, console: Console) -> None:
    """What was asked, latencies, rates, failures, each model, and what to beware of. Some of it a server has
    said."""
    head = [f"{report.url}: {', '.join(report.models)}", f"{report.load}; {report.asked}; seed {report.seed}"]
    _print(head, console)
    console.print(_latencies(report.total))
    lines = [_outcome(report), _rates(report.total), *_sharing(report.total), *_goodput(report)]
    lines += [
        f"failed: {each.count} {each.kind}{f' ({each.status})' if each.status else ''}: {each.message}"
        for each in report.total.errors
    ]
    _print(lines, console)
    if report.by_model:
        console.print(_models(report.by_model, report.slo))
    _print([f"warning: {warning}" for warning in report.warnings], console)


def _print(lines: list[str], console: Console) -> None:
    for line in lines:
        console.print(tame(line), markup=False, highlight=False, soft_wrap=True)


def _latencies(total: Figures) -> Table:
    table = figures_table(None, "ms", "mean", "min", "p50", "p90", "p95", "p99", "max")
    rows = (
        ("TTFT", total.ttft_ms),
        ("TPOT", total.tpot_ms),
        ("ITL", total.itl_ms),
        ("end to end", total.e2e_ms),
    )
    for name, of in rows:
        values = (of.mean, of.min, of.p50, of.p90, of.p95, of.p99, of.max)
        table.add_row(name, *(_ms(value) for value in values))
    return table


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def _outcome(report: Report) -> str:
    total = report.total
    line = f"{total.ok} answered, {total.failed} failed in {report.elapsed_s:.1f} s"
    if report.interrupted:
        line += f"; interrupted, {report.unfinished} had begun and are not counted"
    if report.warmup_failed:
        line += f"; of the warm-up {report.warmup_failed} failed, {report.warmup_ok} were answered"
    return line


def _rates(total: Figures) -> str:
    mean = total.output_tokens / total.ok if total.ok else 0.0
    return (
        f"{total.requests_per_s:.2f} requests/s, {total.output_tokens_per_s:,.1f} output tokens/s, "
        f"{mean:.1f} output tokens a request"
    )


def _sharing(total: Figures) -> list[str]:
    if not total.prompt_tokens or total.cached_tokens is None:
        return []
    line = f"{total.prompt_tokens:,} prompt tokens, {_share(total.cached_tokens, total)} from a cache"
    if total.cross_model_tokens is not None:
        line += f", {_share(total.cross_model_tokens, total)} brought there by another model"
    return [line]


def _share(tokens: int | None, total: Figures) -> str:
    if tokens is None or not total.prompt_tokens:
        return "-"
    return f"{tokens / total.prompt_tokens:.1%}"


def _goodput(report: Report) -> list[str]:
    if not (limits := _limits(report.slo)):
        return []
    total, requests = report.total, report.total.ok + report.total.failed
    share = total.good / requests if requests else 0.0
    return [f"goodput {total.goodput_per_s:.2f} requests/s: {share:.1%} kept {limits}"]


def _limits(slo: Slo) -> str:
    limits = (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("end to end", slo.e2e_ms))
    return " and ".join(f"{name} {limit:g} ms" for name, limit in limits if limit is not None)


def _models(by_model: dict[str, Figures], slo: Slo) -> Table:
    columns = [
        "model",
        "ok",
        "failed",
        "TTFT p50",
        "p95",
        "TPOT p50",
        "p95",
        "tokens/s",
        "cached",
        "cross-model",
    ]
    table = figures_table("Models", *columns, *(["good"] if _limits(slo) else []))
    for model, each in by_model.items():
        row = [tame(model), f"{each.ok}", f"{each.failed}", *_p50_p95(each.ttft_ms), *_p50_p95(each.tpot_ms)]
        row += [f"{each.output_tokens_per_s:,.1f}"]
        row += [_share(each.cached_tokens, each), _share(each.cross_model_tokens, each)]
        if _limits(slo):
            row.append(f"{each.good / (each.ok + each.failed):.1%}" if each.ok + each.failed else "-")
        table.add_row(*row)
    return table


def _p50_p95(of: Percentiles) -> tuple[str, str]:
    return _ms(of.p50), _ms(of.p95)
