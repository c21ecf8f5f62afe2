"""The tables of docs/results/measured.md, from benchmarks/results/*.json: no figure is typed in."""

import ast
import os

from benchmarks.report import RESULTS, Metric, Report
from docs.site.parts import ROOT, table

PAGE = ROOT / "docs" / "results" / "measured.md"
OTHER_FORMS = frozenset({"calibration-cpu", "tracing"})
"""Results that are not a `Report`: samples for the simulator, and the costs in docs/tracing.md."""


def reports() -> dict[str, Report]:
    """Every committed report, by the name of its benchmark."""
    files = [file for file in sorted(RESULTS.glob("*.json")) if file.stem not in OTHER_FORMS]
    return {file.stem: Report.model_validate_json(file.read_bytes()) for file in files}


def runs_table(_: str = "") -> str:
    """Which benchmarks there are, where each ran, and how many of its goals it met."""
    rows = []
    for name, report in reports().items():
        goals = [metric.met for metric in report.metrics.values() if metric.met is not None]
        when = f"{report.date[:10]}, commit {report.commit}"
        rows.append((_link(name), _subject(name), report.machine, when, f"{sum(goals)} of {len(goals)}"))
    return table(("figures", "what is measured", "machine", "run", "goals met"), rows)


def goals_table(name: str) -> str:
    """A benchmark's figures that have a goal. Raises KeyError where there is no such report."""
    goals = {key: metric for key, metric in reports()[name].metrics.items() if metric.goal is not None}
    return _figures(goals)


def figures_table(names: str) -> str:
    """Of a benchmark (the first name) the figures with these keys. Raises KeyError where one is missing."""
    name, *keys = names.split()
    metrics = reports()[name].metrics
    return _figures({key: metrics[key] for key in keys})


def _figures(metrics: dict[str, Metric]) -> str:
    rows = [
        (f"`{key}`", number(metric.value), number(metric.peer), metric.unit, _goal(metric))
        for key, metric in metrics.items()
    ]
    return table(("figure", "here", "beside it", "unit", "goal"), rows)


def number(value: float | None) -> str:
    """With about three digits that count, as a reader wants it; nothing for None."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _goal(metric: Metric) -> str:
    if metric.goal is None:
        return ""
    sign = "at least" if metric.better == "higher" else "at most"
    return f"{sign} {number(metric.goal)}: {'met' if metric.met else '**missed**'}"


def _link(name: str) -> str:
    file = RESULTS / f"{name}.json"
    return f"[{file.name}]({os.path.relpath(file, PAGE.parent)})"


def _subject(name: str) -> str:
    """The first sentence of the benchmark's own docstring."""
    source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    first, _, _ = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    sentence, _, _ = first.replace("\n", " ").partition(". ")
    return sentence.rstrip(".")
