"""Rules and alerts against series that are made up, by promtool: `rules_test.yml` has the cases."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from cluster.dashboards.alerts import ALERTS
from cluster.dashboards.files import RULES, rules_yaml

CASES = Path(__file__).parent / "rules_test.yml"


def run(tool: Callable[[str], str], folder: Path, rules: str) -> subprocess.CompletedProcess[str]:
    (folder / RULES).write_text(rules)
    (folder / CASES.name).write_text(CASES.read_text())
    command = [tool("promtool"), "test", "rules", CASES.name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_every_alert_fires_when_it_must_and_is_silent_when_not(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    tested = run(tool, tmp_path, rules_yaml())
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_both_cases() -> None:
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    for fires in (True, False):
        names = {case["alertname"] for case in cases if bool(case.get("exp_alerts")) is fires}
        assert names == {alert.name for alert in ALERTS}


def test_wrong_limits_are_found(tool: Callable[[str], str], tmp_path: Path) -> None:
    """The control: every case can fail."""
    rules = rules_yaml()
    for alert in ALERTS:
        wrong = replace(alert, compare=">", limit=1e9)
        assert f"expr: {alert.expr}\n" in rules
        rules = rules.replace(f"expr: {alert.expr}\n", f"expr: {wrong.expr}\n")
    tested = run(tool, tmp_path, rules)
    assert tested.returncode != 0
    assert set(re.findall(r"alertname: (\w+)", tested.stdout + tested.stderr)) == {a.name for a in ALERTS}
