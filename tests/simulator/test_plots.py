"""Pictures are files that say what they show, and the same runs give the same bytes."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from heliostat.errors import HeliostatError
from heliostat.wire import Role
from simulator.outcome import Outcome, PoolOutcome, Requests
from simulator.plots import Curves, Point, plot_goodput, plot_latency, plot_timeline
from simulator.slo import Slo
from simulator.summary import Summary, summarize


def an_outcome(ttft_s: float = 0.5) -> Outcome:
    requests = Requests(
        model=[0],
        session=[0],
        arrived_s=[20.0],
        first_s=[20.0 + ttft_s],
        end_s=[30.0],
        prompt_tokens=[100],
        cached_tokens=[0],
        output_tokens=[100],
        refused=[False],
    )
    pool = PoolOutcome("shared", Role.DECODE, 1, 1)
    pool.sizes = [1, 1, 1]
    pool.running, pool.waiting, pool.kv_use = [0.0, 3.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.6, 0.1]
    return Outcome(
        "sun", "by hand", ("m",), 0, 100.0, 100.0, 0.1, requests, {"decode.shared": pool}, [0, 50, 99]
    )


def a_summary(ttft_s: float = 0.5) -> Summary:
    return summarize(an_outcome(ttft_s), Slo(ttft_ms=1000, tpot_ms=100))


def curves() -> Curves:
    sun = [Point(2.0, (a_summary(0.5), a_summary(0.7))), Point(4.0, (a_summary(0.9),))]
    return {"sun": sun, "dedicated": [Point(2.0, (a_summary(0.8),)), Point(4.0, (a_summary(2.0),))]}


def words(path: Path) -> str:
    """All text of an SVG, which must parse."""
    return " ".join(text.strip() for text in ElementTree.parse(path).getroot().itertext() if text.strip())


def test_latency_against_load_names_axes_and_topologies(tmp_path: Path) -> None:
    plot_latency(curves(), "rate (sessions/s)", tmp_path / "latency.svg")
    said = words(tmp_path / "latency.svg")
    for label in (
        "TTFT p95 (ms)",
        "TPOT p95 (ms)",
        "session p95 (ms)",
        "rate (sessions/s)",
        "sun",
        "dedicated",
    ):
        assert label in said


def test_goodput_over_several_loads_is_lines(tmp_path: Path) -> None:
    plot_goodput(curves(), "rate (sessions/s)", tmp_path / "goodput.svg")
    said = words(tmp_path / "goodput.svg")
    for label in (
        "goodput per GPU (requests/s)",
        "output per GPU (tokens/s)",
        "rate (sessions/s)",
        "dedicated",
    ):
        assert label in said


def test_goodput_at_one_load_is_bars_with_their_value(tmp_path: Path) -> None:
    one = {"sun": [Point(2.0, (a_summary(),))]}
    plot_goodput(one, "rate (sessions/s)", tmp_path / "goodput.svg")
    said = words(tmp_path / "goodput.svg")
    assert "1.11" in said  # 100 tokens in 90 s on one GPU
    assert "rate (sessions/s)" not in said


def test_the_timeline_has_a_line_for_each_pool(tmp_path: Path) -> None:
    plot_timeline(an_outcome(), tmp_path / "timeline.svg")
    said = words(tmp_path / "timeline.svg")
    for label in ("running (requests)", "waiting (requests)", "KV in use (%)", "decode.shared", "by hand"):
        assert label in said


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg", "one.png", "two.png"):
        plot_latency(curves(), "rate", tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_figures_that_nobody_has_leave_a_gap(tmp_path: Path) -> None:
    outcome = an_outcome()
    outcome.requests = Requests()
    empty = summarize(outcome, Slo(ttft_ms=1, tpot_ms=1))
    plot_latency({"sun": [Point(2.0, (empty,))]}, "rate", tmp_path / "empty.svg")
    assert "sun" in words(tmp_path / "empty.svg")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match=r"\.svg or \.png"):
        plot_timeline(an_outcome(), tmp_path / "timeline.jpg")
