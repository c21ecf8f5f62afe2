"""The arithmetic behind a summary: columns of requests as arrays, and what can be read from them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.outcome import Outcome
from simulator.slo import Slo

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Window(NamedTuple):
    """The part of virtual time that counts, seconds."""

    start_s: float
    stop_s: float

    @property
    def length_s(self) -> float:
        return self.stop_s - self.start_s


class Columns(NamedTuple):
    """The requests that arrived after the warm-up, as arrays of one length; times in seconds."""

    model: npt.NDArray[np.int64]
    arrived: Floats
    ttft: Floats
    tpot: Floats
    """NaN where there is none: for one token of output, or for a refused request."""
    end_to_end: Floats
    served: Flags
    """Not refused; one that was cut off at the end of the run counts as served with the times it got to."""
    ttft_ok: Flags
    tpot_ok: Flags
    prompt_tokens: Floats
    cached_tokens: Floats


def read_columns(outcome: Outcome, slo: Slo, window: Window) -> Columns:
    """Requests that arrived at or after `window.start_s`, each held against the SLO."""
    requests = outcome.requests
    counts = floats(requests.arrived_s) >= window.start_s
    arrived = floats(requests.arrived_s)[counts]
    first, end = floats(requests.first_s)[counts], floats(requests.end_s)[counts]
    output = floats(requests.output_tokens)[counts]
    served = ~np.asarray(requests.refused, dtype=np.bool_)[counts]
    no_tpot = np.full_like(arrived, np.nan)
    tpot = np.divide(end - first, output - 1, out=no_tpot, where=served & (output > 1))
    return Columns(
        model=np.asarray(requests.model, dtype=np.int64)[counts],
        arrived=arrived,
        ttft=first - arrived,
        tpot=tpot,
        end_to_end=end - arrived,
        served=served,
        ttft_ok=served & ((first - arrived) * 1000 <= slo.ttft_ms),
        # A served request without output was cut off, however early its first token came.
        tpot_ok=np.where(np.isnan(tpot), ~served | (output > 0), tpot * 1000 <= slo.tpot_ms),
        prompt_tokens=floats(requests.prompt_tokens)[counts],
        cached_tokens=floats(requests.cached_tokens)[counts],
    )


def session_s(outcome: Outcome, window: Window) -> Floats:
    """From first arrival to last answer, seconds, of sessions that began in the window or after it; one
    with a refused call is left out, because giving up early is not being fast."""
    requests = outcome.requests
    names, session = np.unique(np.asarray(requests.session, dtype=np.int64), return_inverse=True)
    begin, end = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    refused = np.zeros(len(names), dtype=np.bool_)
    np.minimum.at(begin, session, floats(requests.arrived_s))
    np.maximum.at(end, session, floats(requests.end_s))
    np.logical_or.at(refused, session, np.asarray(requests.refused, dtype=np.bool_))
    lasted: Floats = (end - begin)[(begin >= window.start_s) & ~refused]
    return lasted


def prefix_hit_ratio(columns: Columns) -> float:
    """Prompt tokens that were not computed again, of all prompt tokens of served requests."""
    prompts = float(columns.prompt_tokens[columns.served].sum())
    return float(columns.cached_tokens[columns.served].sum()) / prompts if prompts else 0.0


def tokens_per_s(outcome: Outcome, window: Window) -> float:
    """Output tokens within the window per second of it; a request's are spread evenly from first to last.

    Requests that arrived during the warm-up count as well: the cluster is busy with them.
    """
    if window.length_s <= 0:
        return 0.0
    first, end = floats(outcome.requests.first_s), floats(outcome.requests.end_s)
    overlap = np.clip(np.minimum(end, window.stop_s) - np.maximum(first, window.start_s), 0.0, None)
    at_once = ((first >= window.start_s) & (first <= window.stop_s)).astype(np.float64)
    share = np.divide(overlap, end - first, out=at_once, where=end > first)
    return float(share @ floats(outcome.requests.output_tokens)) / window.length_s


def floats(values: list[float] | list[int]) -> Floats:
    return np.asarray(values, dtype=np.float64)


def mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def share_of(flags: Flags, of_none: float) -> float:
    return float(flags.mean()) if len(flags) else of_none
