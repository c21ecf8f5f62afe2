"""The figures of one load, measured or simulated, and how far they are from each other."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.load import Answer
from benchmarks.report import Metric
from cluster.percentiles import percentile
from simulator.outcome import Requests

GOAL_PERCENT = 15.0


class Case(NamedTuple):
    """One side under one load."""

    side: str
    streams: int

    @property
    def key(self) -> str:
        return f"{self.side.lower()}_{self.streams}"


class Figures(NamedTuple):
    """Of one round."""

    tok_per_s: float
    tpot_p50_ms: float
    ttft_p50_ms: float


GOALS = {"tok_per_s", "tpot_p50_ms"}
"""What a goal is set for. TTFT on one host is mostly the router's and Ray's own time."""


def measured(answers: Sequence[Answer]) -> Figures:
    """From the answers of a real cluster; the load lasts from its first request to its last token."""
    lasted_s = max(each.last_s for each in answers) - min(each.sent_s for each in answers)
    return Figures(
        sum(len(each.token_ids) for each in answers) / lasted_s,
        percentile([each.tpot_ms for each in answers if each.tpot_ms is not None], 50),
        percentile([each.ttft_ms for each in answers], 50),
    )


def simulated(requests: Requests) -> Figures:
    """The same of a simulated one. Every request has two tokens or more, and none is refused."""
    arrived, first, end = requests.arrived_s, requests.first_s, requests.end_s
    decodes = zip(first, end, requests.output_tokens, strict=True)
    return Figures(
        sum(requests.output_tokens) / (max(end) - min(arrived)),
        percentile([(end_s - first_s) * 1e3 / (tokens - 1) for first_s, end_s, tokens in decodes], 50),
        percentile([(then_s - now_s) * 1e3 for now_s, then_s in zip(arrived, first, strict=True)], 50),
    )


def middle(rounds: Iterable[Figures]) -> Figures:
    """The median of each figure over the rounds."""
    return Figures(*(median(values) for values in zip(*rounds, strict=True)))


def error_percent(simulated: float, measured: float) -> float:
    """`|simulated - measured| / measured`, in percent."""
    return abs(simulated - measured) / measured * 100


def compare(real: Mapping[Case, Figures], virtual: Mapping[Case, Figures]) -> dict[str, Metric]:
    """Errors first, then the figures themselves: value simulated, peer measured."""
    errors: dict[str, Metric] = {}
    figures: dict[str, Metric] = {}
    for case, was in real.items():
        for name, value, peer in zip(Figures._fields, virtual[case], was, strict=True):
            errors[f"{case.key}_{name}_error"] = Metric(
                value=round(error_percent(value, peer), 2),
                unit="%",
                goal=GOAL_PERCENT if name in GOALS else None,
                better="lower",
            )
            figures[f"{case.key}_{name}"] = Metric(
                value=round(value, 3),
                unit="tok/s" if name == "tok_per_s" else "ms",
                better="higher" if name == "tok_per_s" else "lower",
                peer=round(peer, 3),
            )
    return errors | figures
