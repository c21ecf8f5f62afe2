"""The cost of spans: the benchmark runs, and its page has the committed figures."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import tracing

ROOT = Path(__file__).parents[2]
ROWS = {
    "a line in the log": "lines_us",
    "a request that is not sampled": "unsampled_us",
    "a sampled one, 7 spans": "sampled_us",
    "a sampled one, and a line": "sampled_and_lines_us",
    "a sampled leg, in its replica": "replica_sampled_us",
}


def test_a_small_run_has_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "REQUESTS", 40)
    costs = tracing.measure(rounds=1)
    assert (costs.requests, costs.rounds) == (40, 1)
    assert costs.router_off_us > 0 and costs.replica_off_us > 0
    assert costs.sampled_us > 0 and costs.replica_sampled_us > 0


def test_the_page_has_the_committed_figures() -> None:
    costs = json.loads((ROOT / "benchmarks" / "results" / "tracing.json").read_text())
    page = (ROOT / "docs" / "tracing.md").read_text()
    for row, key in ROWS.items():
        assert f"| {row} | {costs[key]:.0f} |" in page
    rounds = re.search(r"medians of (\d+)\s+rounds on (\d+) cores", page)
    assert rounds is not None
    assert (int(rounds[1]), int(rounds[2])) == (costs["rounds"], costs["cpus"])
    share = costs["sampled_us"] * 200 / 1e6
    assert f"takes {share:.0%}".replace("%", " %") in page
