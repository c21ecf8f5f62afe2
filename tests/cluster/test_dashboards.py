"""The dashboard and the rules by themselves; what a real Prometheus finds for them is in tests/e2e."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.cli import main
from cluster.dashboards.alerts import ALERTS
from cluster.dashboards.board import HELIOSTAT
from cluster.dashboards.files import dashboard_json, rules_yaml
from cluster.dashboards.recordings import RECORDINGS

ROWS = ["Pools", "Models", "Transfers", "Sharing", "Admission", "Autoscaling", "Routers", "Nodes"]
OBSERVABILITY = Path(__file__).parents[2] / "docs" / "observability.md"


def queries() -> list[str]:
    return [query.expr for row in HELIOSTAT.rows for panel in row.panels for query in panel.queries]


def test_the_rows_are_there_and_panels_neither_overlap_nor_stick_out() -> None:
    panels = HELIOSTAT.to_json()["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ROWS
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_panel_says_what_it_shows_and_reads_the_chosen_data_source() -> None:
    for panel in HELIOSTAT.to_json()["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert panel["targets"]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_every_query_keeps_to_the_cluster_and_its_variables_exist() -> None:
    known = {variable.name for variable in HELIOSTAT.variables} | {"__rate_interval"}
    assert {"job", "application", "pool", "model"} <= known
    for expr in queries():
        selectors = len(re.findall(r"\bray_\w+", expr))
        assert selectors
        assert expr.count('job=~"$job"') == selectors, expr
        assert set(re.findall(r"\$(\w+)", expr)) <= known


def test_legends_name_labels_that_the_query_keeps() -> None:
    """A legend of another label is an empty name."""
    for row in HELIOSTAT.rows:
        for panel in row.panels:
            for query in panel.queries:
                named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
                kept = set(re.findall(r"\w+", " ".join(re.findall(r"(?:by|left) \(([^)]*)\)", query.expr))))
                assert row.title == "Nodes" or named <= kept, (panel.title, named - kept)


def test_rules_are_what_prometheus_reads(tool: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(rules_yaml())
    checked = subprocess.run([tool("promtool"), "check", "rules", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RECORDINGS) + len(ALERTS)} rules found" in checked.stdout


def test_what_alerts_read_is_recorded_or_measured() -> None:
    recorded = {recording.name for recording in RECORDINGS}
    assert len(recorded) == len(RECORDINGS)
    for alert in ALERTS:
        names = set(re.findall(r"heliostat:[\w:]+", alert.measure))
        assert names <= recorded
        assert names or alert.compare == "absent"


def test_every_alert_has_a_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", OBSERVABILITY.read_text(), re.MULTILINE)
    assert headings == [alert.name for alert in ALERTS]
    for rule in yaml.safe_load(rules_yaml())["groups"][1]["rules"]:
        assert rule["annotations"]["runbook"] == f"docs/observability.md#{rule['alert'].lower()}"


def test_write_makes_three_files_and_again_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: Callable[[str], str]
) -> None:
    folder = tmp_path / "new" / "folder"
    command = ["dashboards", "write", str(folder), "--url", "http://heliostat:8000/"]
    assert main(command) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(paths) == sorted(folder.iterdir())
    texts = {path.name: path.read_text() for path in paths}
    assert texts["heliostat-dashboard.json"] == dashboard_json()
    assert json.loads(dashboard_json())["uid"] == "heliostat"
    assert "- url: http://heliostat:8000/heliostat/targets\n" in texts["prometheus.yml"]
    assert main(command) == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == texts
    config = str(folder / "prometheus.yml")
    checked = subprocess.run([tool("promtool"), "check", "config", config], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_folder_that_cannot_be_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["dashboards", "write", str(tmp_path / "file" / "folder")]) == 1
    assert f"cannot write to {tmp_path}/file/folder: Not a directory" in capsys.readouterr().err
