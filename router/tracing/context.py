"""W3C trace context: which trace a request belongs to, as the headers `traceparent` and `tracestate` say it.

Without OpenTelemetry's packages: a request log names the trace also where no span is made.
"""

import random
import re
from dataclasses import dataclass

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

MAX_STATE = 512
"""Characters of `tracestate` that are handed on; the standard asks for at least so many."""

_SAMPLED = 1
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span's identity. `state` is what other vendors keep beside it; it is handed on as it came."""

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""

    def child(self) -> "TraceContext":
        """A span of the same trace."""
        return TraceContext(self.trace_id, new_span_id(), self.sampled, self.state)

    @property
    def trace_hex(self) -> str:
        """The trace's name in logs and tracing tools."""
        return f"{self.trace_id:032x}"

    @property
    def traceparent(self) -> str:
        """The header that makes whoever receives it a child of this span."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def parse_context(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """The sender's span; None when the header is absent or malformed, which starts a new trace."""
    found = _FORM.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    # Version 0 has four fields; later ones may have more, and ff is none.
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = tracestate.strip() if len(tracestate) <= MAX_STATE else ""
    return TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED), state)


def new_trace_id() -> int:
    """Random, and not zero."""
    return random.getrandbits(128) or 1


def new_span_id() -> int:
    """Random, and not zero."""
    return random.getrandbits(64) or 1
