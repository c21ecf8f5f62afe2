"""One line for every request that is over. It has names, counts and times; never a prompt or an answer."""

import json
import logging
from collections.abc import Iterable
from typing import Literal

from router.accounts import Outcome
from router.trace import Trace
from router.tracing.spans import HttpRequest

Value = str | int | float | list[str] | None

_WORST_FIRST = (
    Outcome.FAILED,
    Outcome.UNAVAILABLE,
    Outcome.REFUSED,
    Outcome.CANCELLED,
    Outcome.FINISHED,
)
_REFUSALS = {429: Outcome.REFUSED, 503: Outcome.UNAVAILABLE}

logger = logging.getLogger(__name__)


class RequestLog:
    """Writes to the logger `router.request_log`: as `json`, fields of the record, as `text`, its message."""

    def __init__(self, form: Literal["json", "text"]) -> None:
        self._form = form

    def write(self, request: HttpRequest) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        fields = request_fields(request)
        if self._form == "json":
            logger.info("request", extra=fields)
        else:
            logger.info("request %s", " ".join(f"{key}={_shown(value)}" for key, value in fields.items()))


def request_fields(request: HttpRequest) -> dict[str, Value]:
    """What is known of a request; what it did not come to is left out.

    Times are milliseconds: `admit_ms` from its arrival until it had a place, `prefill_ms` and
    `first_token_ms` the parts after that, `ttft_ms` the sum. Of a request with several prompts, tokens are
    sums and times those of the slowest.
    """
    traces = request.traces
    fields: dict[str, Value] = {
        "request_id": request.request_id,
        "trace_id": request.trace_id,
        "path": request.path,
        "status": request.status,
        "outcome": _outcome(request),
        "model": traces[0].model if traces else request.model,
        "duration_ms": _ms(request.ended_s - request.started_s),
    }
    if traces:
        fields |= {
            "prompts": len(traces),
            "prefill_replica": _names(trace.prefill_replica for trace in traces),
            "decode_replica": _names(trace.decode_replica for trace in traces),
            "prompt_tokens": sum(trace.prompt_tokens for trace in traces),
            "cached_tokens": sum(trace.cached_tokens for trace in traces),
            "output_tokens": sum(trace.output_tokens for trace in traces),
            "handoff_bytes": sum(trace.handoff_bytes for trace in traces),
            "attempts": sum(trace.attempts for trace in traces),
            "failures": [failure for trace in traces for failure in trace.failures],
            "admit_ms": _slowest(traces, "started_s", "admitted_s"),
            "prefill_ms": _slowest(traces, "admitted_s", "prefilled_s"),
            "first_token_ms": _slowest(traces, "prefilled_s", "first_token_s"),
            "ttft_ms": _slowest(traces, "started_s", "first_token_s"),
        }
    return {key: value for key, value in fields.items() if value not in ("", [], None)}


def _outcome(request: HttpRequest) -> str:
    """Of its prompts, the one that ended worst; of a request that had none, what its status says."""
    outcomes = {trace.outcome for trace in request.traces}
    if found := next((outcome for outcome in _WORST_FIRST if outcome in outcomes), None):
        return found
    if not request.status:
        return Outcome.CANCELLED
    if request.status < 400:
        return Outcome.FINISHED
    return _REFUSALS.get(request.status, Outcome.FAILED)


def _names(names: Iterable[str | None]) -> str:
    return ",".join(dict.fromkeys(name for name in names if name))


def _slowest(traces: Iterable[Trace], begin: str, end: str) -> float | None:
    """Of the prompts that came so far."""
    times = [getattr(trace, end) - getattr(trace, begin) for trace in traces if getattr(trace, end)]
    return _ms(max(times)) if times else None


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _shown(value: Value) -> str:
    """Bare where that is unmistakable, else as JSON."""
    text = str(value)
    plain = not isinstance(value, list) and text.isprintable() and not set(text) & set(' "=')
    return text if plain else json.dumps(value)
