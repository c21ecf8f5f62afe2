"""A benchmark's result: one JSON file for machines, one table for people."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"


class Metric(BaseModel):
    """One figure. `peer` is the same of what a user would pick instead, measured in the same run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    unit: str
    goal: float | None = None
    better: Literal["higher", "lower"]
    peer: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal


class Report(BaseModel):
    """A run: where, of which commit, when (UTC), the median of how many rounds, and its figures by key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    commit: str
    date: str
    rounds: int
    metrics: dict[str, Metric]


def make_report(rounds: int, metrics: dict[str, Metric]) -> Report:
    """Stamp figures with this machine, this commit and the time."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(machine=machine(), commit=commit(), date=date, rounds=rounds, metrics=metrics)


def write_json(report: Report, path: Path) -> None:
    """Write the report to `path`, with its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


def render(report: Report, console: Console, *, title: str, value: str, peer: str) -> None:
    """Print one row per figure under the names of the two sides; a missed goal says so."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("metric", no_wrap=True)
    table.add_column("unit")
    for heading in (value, peer):
        table.add_column(heading, justify="right")
    table.add_column("better")
    table.add_column("goal")
    for key, metric in report.metrics.items():
        table.add_row(
            key,
            metric.unit,
            f"{metric.value:,.2f}",
            "" if metric.peer is None else f"{metric.peer:,.2f}",
            metric.better,
            _verdict(metric),
        )
    console.print(table)
    where = f"{report.machine}; commit {report.commit}; {report.date}; medians of {report.rounds} rounds"
    console.print(where, highlight=False, markup=False, soft_wrap=True)


def _verdict(metric: Metric) -> str:
    if metric.goal is None:
        return ""
    sign = "≥" if metric.better == "higher" else "≤"
    return f"{sign} {metric.goal:g} {'met' if metric.met else 'MISSED'}"


def machine() -> str:
    """The CPU's model name and the number of cores that this process may use."""
    return f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def commit() -> str:
    """The checked-out commit; `-dirty` when anything but results differs from it."""
    changes = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changes else "")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.strip()
