"""Pictures of runs: latency against load, goodput per GPU, pools over time.

The same runs give the same bytes, so that committed pictures change only when figures do. Colours are Okabe
and Ito's, which people with colour blindness tell apart; markers and dashes differ as well.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypedDict

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from heliostat.errors import HeliostatError
from simulator.outcome import Outcome, PoolOutcome
from simulator.summary import Summary

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX*h"
DASHES = ("-", "--", "-.", ":")
SUFFIXES = (".svg", ".png")


class Point(NamedTuple):
    """Runs at one load that differ by seed only; a plot shows their median, and their range as a bar."""

    load: float
    rounds: tuple[Summary, ...]


Curves = Mapping[str, Sequence[Point]]
"""By label, for example the topology, in the order of the legend."""

Read = Callable[[Summary], float | None]


def plot_latency(curves: Curves, load_label: str, path: Path) -> None:
    """p95 of TTFT, TPOT and whole sessions against load, a line for each label.

    `load_label` names the load with its unit, `rate (sessions/s)`. Raises HeliostatError for a suffix that is
    not .svg or .png, and when the file cannot be written; so do the others.
    """
    panels: tuple[tuple[str, Read], ...] = (
        ("TTFT p95 (ms)", lambda summary: summary.ttft_ms.p95),
        ("TPOT p95 (ms)", lambda summary: summary.tpot_ms.p95),
        ("session p95 (ms)", lambda summary: summary.session_ms.p95),
    )
    with _style():
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        for axes, (name, read) in zip(figure.subplots(1, 3), panels, strict=True):
            _lines(axes, curves, read)
            axes.set(xlabel=load_label, ylabel=name, yscale="log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        _legend(figure)
        _save(figure, path)


def plot_goodput(curves: Curves, load_label: str, path: Path) -> None:
    """Goodput and output tokens per second and GPU: lines over loads, bars where there is one load only."""
    panels: tuple[tuple[str, Read], ...] = (
        ("goodput per GPU (requests/s)", lambda summary: summary.goodput_per_s_per_gpu),
        ("output per GPU (tokens/s)", lambda summary: summary.output_tokens_per_s_per_gpu),
    )
    swept = any(len(points) > 1 for points in curves.values())
    with _style():
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        for axes, (name, read) in zip(figure.subplots(1, 2), panels, strict=True):
            if swept:
                _lines(axes, curves, read)
                axes.set(xlabel=load_label, ylabel=name)
            else:
                _bars(axes, curves, read)
                axes.set(ylabel=name)
            axes.set_ylim(bottom=0)
        if swept:
            _legend(figure)
        _save(figure, path)


def plot_timeline(outcome: Outcome, path: Path) -> None:
    """Requests computing, requests waiting and KV in use over virtual time, a line for each pool."""
    panels: tuple[tuple[str, Callable[[PoolOutcome], list[float]]], ...] = (
        ("running (requests)", lambda pool: pool.running),
        ("waiting (requests)", lambda pool: pool.waiting),
        ("KV in use (%)", lambda pool: [share * 100 for share in pool.kv_use]),
    )
    with _style():
        figure = Figure(figsize=(8, 6), layout="constrained")
        rows = figure.subplots(3, 1, sharex=True)
        for axes, (name, read) in zip(rows, panels, strict=True):
            for index, (pool_name, pool) in enumerate(outcome.pools.items()):
                axes.plot(outcome.times_s, read(pool), **_line_style(index), label=pool_name)
            axes.axvline(outcome.duration_s, color="grey", linewidth=0.8, linestyle=":")
            axes.set(ylabel=name)
            axes.set_ylim(bottom=0)
        rows[-1].set(xlabel="time (s); dotted: the last session began")
        rows[0].set_title(f"{outcome.topology}: {outcome.workload}", loc="left", fontsize=9, wrap=True)
        _legend(figure)
        _save(figure, path)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "svg.hashsalt": "heliostat",
            "svg.fonttype": "none",  # text stays text: small, and found by a search
            "font.size": 9.0,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
        }
    )


def _lines(axes: Axes, curves: Curves, read: Read) -> None:
    for index, (label, points) in enumerate(curves.items()):
        known = [(point.load, values) for point in points if (values := _values(point, read))]
        middles = [median(values) for _, values in known]
        ranges = (
            [middle - min(values) for middle, (_, values) in zip(middles, known, strict=True)],
            [max(values) - middle for middle, (_, values) in zip(middles, known, strict=True)],
        )
        axes.errorbar(
            [load for load, _ in known],
            middles,
            yerr=ranges if any(len(values) > 1 for _, values in known) else None,
            **_line_style(index),
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            capsize=2,
            label=label,
        )


def _bars(axes: Axes, curves: Curves, read: Read) -> None:
    for index, (label, points) in enumerate(curves.items()):
        values = [value for point in points for value in _values(point, read)]
        if values:
            bar = axes.bar(label, median(values), width=0.6, color=COLOURS[index % len(COLOURS)])
            axes.bar_label(bar, fmt="%.3g")
    axes.tick_params(axis="x", labelrotation=20)
    axes.grid(visible=False, axis="x")


def _values(point: Point, read: Read) -> list[float]:
    return [value for summary in point.rounds if (value := read(summary)) is not None]


class _LineStyle(TypedDict):
    color: str
    linestyle: str


def _line_style(index: int) -> _LineStyle:
    dashes = DASHES[index // len(COLOURS) % len(DASHES)]
    return _LineStyle(color=COLOURS[index % len(COLOURS)], linestyle=dashes)


def _legend(figure: Figure) -> None:
    """One for all panels, below them."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)


def _save(figure: Figure, path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise HeliostatError(f"{path}: a picture ends in {' or '.join(SUFFIXES)}")
    # Without a date and a version, which would differ from run to run.
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=metadata, dpi=144)
    except OSError as error:
        raise HeliostatError(f"{path}: cannot be written: {error.strerror}") from error
