"""Facts about the result file and the table."""

import json
from io import StringIO
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from benchmarks.report import Metric, Report, make_report, render, write_json

RATIO = Metric(value=2.4, unit="SUN / dedicated", goal=2.0, better="higher")
TPOT = Metric(value=11.0, unit="ms", goal=10.5, better="lower", peer=10.0)
REPORT = Report(
    machine="A CPU, 2 cores",
    commit="abc1234",
    date="2026-01-01T00:00:00+00:00",
    rounds=5,
    metrics={"ratio": RATIO, "tpot_p50": TPOT},
)


def test_the_file_has_exactly_the_agreed_keys(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sharing.json"
    write_json(REPORT, path)
    assert json.loads(path.read_text()) == {
        "machine": "A CPU, 2 cores",
        "commit": "abc1234",
        "date": "2026-01-01T00:00:00+00:00",
        "rounds": 5,
        "metrics": {
            "ratio": {"value": 2.4, "unit": "SUN / dedicated", "goal": 2.0, "better": "higher", "peer": None},
            "tpot_p50": {"value": 11.0, "unit": "ms", "goal": 10.5, "better": "lower", "peer": 10.0},
        },
    }


@pytest.mark.parametrize(
    ("value", "goal", "better", "met"),
    [
        (2.0, 2.0, "higher", True),
        (1.9, 2.0, "higher", False),
        (1.05, 1.05, "lower", True),
        (1.06, 1.05, "lower", False),
        (1.0, None, "lower", None),
    ],
)
def test_a_goal_is_met_on_its_better_side(
    value: float, goal: float | None, better: str, met: bool | None
) -> None:
    metric = Metric.model_validate({"value": value, "unit": "", "goal": goal, "better": better})
    assert metric.met is met


def test_a_figure_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError):
        Metric(value=float("nan"), unit="ms", better="lower")


def test_a_report_is_stamped_without_host_names_or_paths() -> None:
    report = make_report(3, {"ratio": RATIO})
    assert (report.rounds, report.metrics) == (3, {"ratio": RATIO})
    assert report.machine.endswith(" cores")
    assert "/" not in report.machine + report.commit


def test_the_table_shows_both_sides_and_missed_goals() -> None:
    out = StringIO()
    render(REPORT, Console(file=out, width=120), title="A title", value="SUN", peer="dedicated")
    lines = out.getvalue().splitlines()
    ratio = next(line for line in lines if "ratio" in line)
    tpot = next(line for line in lines if "tpot_p50" in line)
    assert ratio.split()[-3:] == ["≥", "2", "met"]
    assert tpot.split() == ["tpot_p50", "ms", "11.00", "10.00", "lower", "≤", "10.5", "MISSED"]
    assert "medians of 5 rounds" in lines[-1]
