"""Bursts that keep the trace's requests and its mean rate; the page's table is the committed result."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.autoscaling import LOADS, metrics_of, of_load
from benchmarks.autoscaling_load import BURST_S, FACTOR, PERIOD_S, in_bursts, warped
from benchmarks.report import RESULTS
from simulator.workload.replay import Replay, TraceRequest

ROWS = {
    "ours": "ours",
    "`peak`": "peak",
    "`mean`": "mean",
    "Serve, default": "serve",
    "Serve, tuned": "serve_tuned",
    "24 + 12, fixed": "huge",
}
PAGE = Path(__file__).parents[2] / "docs" / "autoscaling.md"


def test_a_period_takes_as_long_and_its_end_comes_faster() -> None:
    assert [warped(number * PERIOD_S) for number in range(4)] == [number * PERIOD_S for number in range(4)]
    moments = [warped(second) for second in range(int(PERIOD_S))]
    assert all(before < after for before, after in pairwise(moments))
    inside = sum(moment >= PERIOD_S - BURST_S for moment in moments)
    assert inside == pytest.approx(FACTOR * BURST_S, abs=1)


def test_bursts_lose_no_request_of_the_trace() -> None:
    requests = tuple(TraceRequest(second, 10, 5) for second in range(600))
    replay = Replay("trace", ("m",), requests, 600.0, 512)
    bursty = in_bursts(replay)
    assert len(bursty.requests) == 600 and bursty.duration_s == 600.0
    assert [each.prompt_tokens for each in bursty.requests] == [10] * 600


def test_a_small_comparison_has_every_policy(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = (
        {"timestamp": 500 * n, "input_length": 700, "output_length": 20, "hash_ids": [2 * n, 2 * n + 1]}
        for n in range(60)
    )
    trace.write_text("\n".join(map(json.dumps, lines)))
    found = of_load(trace, "x1", seeds=1, duration_s=None)
    metrics = metrics_of("x1", found)
    assert set(found) == set(ROWS.values())
    assert metrics["x1_peak_prefill_mean"].value == metrics["x1_peak_decode_mean"].value == 1
    assert metrics["x1_huge_gpu_hours"].value == pytest.approx(36 * 30 / 3600, rel=0.05)


def test_the_pages_table_is_the_committed_result() -> None:
    metrics = json.loads((RESULTS / "autoscaling.json").read_text())["metrics"]
    page = PAGE.read_text()
    for load in LOADS:
        for label, policy in ROWS.items():
            value = {key: metrics[f"{load}_{policy}_{key}"]["value"] for key in FIGURES}
            row = (
                f"| {load} | {label} | {value['attainment']:.1f} | {value['gpu_hours']:.1f} "
                f"| {value['ttft_p95'] / 1000:.1f} "
                f"| {value['prefill_mean']:.1f} + {value['decode_mean']:.1f} |"
            )
            assert row in page, row


FIGURES = ("attainment", "gpu_hours", "ttft_p95", "prefill_mean", "decode_mean")
