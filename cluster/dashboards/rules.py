"""Prometheus' recording rules and alerts as typed values; `to_yaml` is the file that Prometheus reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import yaml

RUNBOOK = "docs/observability.md"


@dataclass(frozen=True, slots=True)
class Recording:
    """A figure that Prometheus keeps under a name, `heliostat:<of what>:<how>`."""

    name: str
    expr: str

    def to_rule(self) -> dict[str, str]:
        """As in a rule file."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Alert:
    """Fires when `measure` has been beyond `limit` for `lasting`.

    `measure` is an expression that has data whenever the cluster serves, beyond the limit or not: so a
    test, or an operator, can see what the alert sees. `unless` names series for which it keeps silent.
    `compare` is how, or `absent`: when there is no such series at all.
    """

    name: str
    measure: str
    compare: Literal[">", "==", "absent"]
    limit: float
    lasting: str
    severity: Literal["page", "ticket"]
    summary: str
    unless: str = ""

    @property
    def expr(self) -> str:
        """What Prometheus evaluates."""
        if self.compare == "absent":
            return f"absent({self.measure})"
        return f"{self.measure} {self.compare} {self.limit:g}{self.unless}"

    def to_rule(self) -> dict[str, str | dict[str, str]]:
        """As in a rule file."""
        anchor = self.name.lower()
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasting,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook": f"{RUNBOOK}#{anchor}"},
        }


def to_yaml(recordings: Sequence[Recording], alerts: Sequence[Alert]) -> str:
    """One file with two groups."""
    groups = [
        {"name": "heliostat-figures", "rules": [recording.to_rule() for recording in recordings]},
        {"name": "heliostat-alerts", "rules": [alert.to_rule() for alert in alerts]},
    ]
    text: str = yaml.safe_dump({"groups": groups}, sort_keys=False, width=10_000)
    return text
