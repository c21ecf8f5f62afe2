"""A replica's own spans: what the engine did for a leg, hung below the leg's span in its router.

    prefill (the router's leg)
      engine prefill       on the prefill replica, from the call's arrival to its ticket
        handoff save
    decode (the router's leg)
      engine decode        on the decode replica, from the call's arrival to its last token
        handoff load

The engine measures how long a copy takes, not when: a save is drawn at the end of its prefill, a load at the
end of the wait for the first token.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from heliostat.errors import RequestError
from heliostat.wire import DecodeRequest, PrefillRequest, PrefillResult, Role, TokenFrame
from router.requests import Sink
from router.trace import error_type
from router.tracing.context import TraceContext, parse_context
from router.tracing.spans import Attribute, Kind, Span

Request = TypeVar("Request", PrefillRequest, DecodeRequest)


@dataclass(slots=True)
class LegSpan:
    """One leg in a replica, as far as it has come."""

    context: TraceContext
    parent: TraceContext
    role: Role
    started_s: float
    attributes: dict[str, Attribute] = field(default_factory=dict)
    copy_ms: float = 0.0
    first_s: float = 0.0

    def prefilled(self, result: PrefillResult) -> None:
        """Its prompt is computed and saved."""
        self.copy_ms = result.save_ms
        self.attributes["heliostat.kv_domain"] = result.ticket.domain
        self.attributes["heliostat.cached_tokens"] = result.cached_tokens
        self.attributes["heliostat.handoff.bytes"] = result.ticket.num_bytes

    def first(self, frame: TokenFrame, now_s: float) -> None:
        """Its first tokens are out."""
        self.first_s, self.copy_ms = now_s, frame.load_ms or 0.0


class ReplicaSpans:
    """Of one replica; without a sink, or for a leg that is not sampled, nothing happens."""

    def __init__(self, sink: Sink | None, replica: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._replica = replica
        self._clock = clock

    @contextmanager
    def leg(self, role: Role, request: PrefillRequest | DecodeRequest) -> Iterator[LegSpan | None]:
        """The leg while the engine has it."""
        parent = None
        if self._sink is not None and request.traceparent:
            parent = parse_context(request.traceparent, request.tracestate)
        if self._sink is None or parent is None or not parent.sampled:
            yield None
            return
        span = LegSpan(parent.child(), parent, role, self._clock())
        span.attributes |= {
            "heliostat.replica": self._replica,
            "heliostat.leg_id": request.request_id,
            "gen_ai.request.model": request.model,
            "gen_ai.usage.input_tokens": len(request.token_ids),
        }
        failure = ""
        try:
            yield span
        except RequestError as error:
            span.attributes["error.type"], failure = error_type(error), error.message
            raise
        except BaseException:
            span.attributes["heliostat.cut"] = True
            raise
        finally:
            self._sink.emit(self._spans(span, self._clock(), failure))

    def first(self, span: LegSpan | None, frame: TokenFrame) -> None:
        """The leg's first tokens."""
        if span is not None:
            span.first(frame, self._clock())

    @staticmethod
    def below(span: LegSpan | None, request: Request) -> Request:
        """The request for an engine that may hang spans of its own below ours."""
        return replace(request, traceparent=span.context.traceparent) if span else request

    @staticmethod
    def _spans(leg: LegSpan, end_s: float, failure: str) -> Iterator[Span]:
        yield Span(
            f"engine {leg.role}",
            Kind.SERVER,
            leg.context,
            leg.parent,
            leg.started_s,
            end_s,
            leg.attributes,
            failure,
        )
        if leg.copy_ms:
            copied_s = end_s if leg.role is Role.PREFILL else leg.first_s
            name = "handoff save" if leg.role is Role.PREFILL else "handoff load"
            began_s = max(leg.started_s, copied_s - leg.copy_ms / 1e3)
            attributes: dict[str, Attribute] = {"heliostat.handoff.ms": leg.copy_ms}
            yield Span(name, Kind.INTERNAL, leg.context.child(), leg.context, began_s, copied_s, attributes)
