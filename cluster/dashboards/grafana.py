"""A Grafana dashboard as typed values; `Dashboard.to_json` is what Grafana imports (schema version 39)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

Json = dict[str, object]

SCHEMA_VERSION = 39
COLUMNS = 24
HEIGHT = 8
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression, and what its series are called (`{{label}}` is that label's value)."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: lines over time, or the newest number. `unit` is Grafana's name for it."""

    title: str
    queries: tuple[Query, ...]
    unit: str
    description: str
    kind: Literal["timeseries", "stat"] = "timeseries"
    stacked: bool = False
    most: float | None = None
    """Where the axis ends; None: at the largest value."""

    def to_json(self, number: int, x: int, y: int, width: int) -> Json:
        """At that place of the grid."""
        defaults: Json = {"unit": self.unit, "min": 0}
        if self.most is not None:
            defaults["max"] = self.most
        if self.kind == "timeseries":
            stacking = "normal" if self.stacked else "none"
            defaults["custom"] = {
                "fillOpacity": 30 if self.stacked else 5,
                "showPoints": "never",
                "stacking": {"mode": stacking},
            }
            options: Json = {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        else:
            options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"}
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": HEIGHT, "w": width, "x": x, "y": y},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options,
            "targets": [
                {
                    "refId": chr(ord("A") + index),
                    "datasource": DATASOURCE,
                    "expr": query.expr,
                    "legendFormat": query.legend,
                }
                for index, query in enumerate(self.queries)
            ],
        }


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, `columns` of them beside each other."""

    title: str
    panels: tuple[Panel, ...]
    columns: int = 3

    def to_json(self, numbers: Iterator[int], y: int) -> tuple[list[Json], int]:
        """Its heading and panels from line `y` of the grid on, and the line below them."""
        heading: Json = {
            "id": next(numbers),
            "type": "row",
            "title": self.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            "panels": [],
        }
        width = COLUMNS // self.columns
        panels = [
            panel.to_json(
                next(numbers),
                x=index % self.columns * width,
                y=y + 1 + index // self.columns * HEIGHT,
                width=width,
            )
            for index, panel in enumerate(self.panels)
        ]
        return [heading, *panels], y + 1 + -(-len(self.panels) // self.columns) * HEIGHT


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top: the values that a label has. `query` is Grafana's `label_values(...)`."""

    name: str
    label: str
    query: str

    def to_json(self) -> Json:
        """All values at first, and any number of them."""
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": DATASOURCE,
            "query": {"query": self.query, "refId": self.name},
            "definition": self.query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The whole; `uid` is its identity in a Grafana, so that a newer one replaces it."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    tags: tuple[str, ...] = field(default=())

    def to_json(self, datasource_uid: str = "") -> Json:
        """For Grafana's import, or its API; without a data source, Grafana takes its default Prometheus."""
        numbers, y = count(1), 0
        panels: list[Json] = []
        for row in self.rows:
            made, y = row.to_json(numbers, y)
            panels += made
        current: Json = {"value": datasource_uid} if datasource_uid else {}
        datasource: Json = {
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "query": "prometheus",
            "current": current,
        }
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": list(self.tags),
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "refresh": "10s",
            "time": {"from": "now-30m", "to": "now"},
            "templating": {"list": [datasource, *(variable.to_json() for variable in self.variables)]},
            "panels": panels,
        }
