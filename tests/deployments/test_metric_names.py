"""Metrics are what docs/observability.md says they are, and what dashboard and rules read is there."""

import re
from pathlib import Path

import pytest

from cluster.dashboards.alerts import ALERTS
from cluster.dashboards.board import HELIOSTAT
from cluster.dashboards.recordings import RECORDINGS
from deployments.metrics import Metrics
from deployments.replica_metrics import ReplicaMetrics
from heliostat.spec import Family, Model, Pool, Spec
from heliostat.wire import Role
from router.accounts import Accounts
from router.histogram import Histogram

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
OF_AUTOSCALING = {"heliostat_pool_wanted_replicas"}
"""Ray Serve's controller publishes it, not a router or a replica."""

SPEC = Spec(
    family=Family(base="b"),
    prefill={"p": Pool(weights="w")},
    decode={"d": Pool(weights="w")},
    models={"m": Model(prefill="p", decode="d")},
)


@pytest.fixture
def made(fake_kinds) -> dict[str, set[str]]:
    """Every metric of a router and of a replica, and its labels."""
    # Nothing is published: only what is made is asked for.
    Metrics(SPEC, Accounts(SPEC), None, None, None, Histogram(), fake_kinds)
    ReplicaMetrics(Role.DECODE, "d", fake_kinds)
    return {name: set(metric.tag_keys) for name, metric in fake_kinds.made.items()}


def test_the_page_has_every_metric_with_its_labels_and_no_other(made: dict[str, set[str]]) -> None:
    told = {}
    for names, labels in re.findall(r"^\| (`heliostat_[^|]*)\|([^|]*)\|", PAGE, re.MULTILINE):
        for name in re.findall(r"`(heliostat_\w+)`", names):
            assert name not in told
            told[name] = set(labels.replace(" ", "").split(",")) - {""}
    assert told == made


def test_dashboard_and_rules_read_what_is_there(made: dict[str, set[str]]) -> None:
    exprs = [query.expr for row in HELIOSTAT.rows for panel in row.panels for query in panel.queries]
    exprs += [variable.query for variable in HELIOSTAT.variables]
    exprs += [rule.expr for rule in (*RECORDINGS, *ALERTS)]
    read = {
        re.sub("_seconds_(bucket|count|sum)$", "_seconds", name)
        for expr in exprs
        for name in re.findall(r"\bray_(heliostat_\w+)", expr)
    }
    assert len(read) > 40
    assert read - OF_AUTOSCALING <= made.keys()


def test_every_matcher_is_a_label_of_its_metric(made: dict[str, set[str]]) -> None:
    """One that is not matches nothing but the empty value."""
    of_ray = {"job"}
    for row in HELIOSTAT.rows:
        for panel in row.panels:
            for query in panel.queries:
                for name, matchers in re.findall(r"\bray_(heliostat_\w+)\{([^}]*)\}", query.expr):
                    labels = made.get(
                        re.sub("_seconds_(bucket|count|sum)$", "_seconds", name), {"role", "pool"}
                    )
                    assert set(re.findall(r"(\w+)[!=]=?~?\"", matchers)) <= labels | of_ray, query.expr


def test_the_page_has_every_recorded_figure() -> None:
    assert set(re.findall(r"`(heliostat:[\w:]+)`", PAGE)) == {recording.name for recording in RECORDINGS}
