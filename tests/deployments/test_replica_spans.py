"""A replica's own spans below a leg: when there are any, and what they say."""

import asyncio
from collections.abc import Iterable

import pytest

from deployments.replica_spans import ReplicaSpans
from heliostat.errors import HandoffFailedError
from heliostat.wire import DecodeRequest, Load, PrefillRequest, PrefillResult, Role, Ticket, TokenFrame
from router.tracing.context import TraceContext
from router.tracing.spans import Span

LEG = TraceContext(0xABC, 0xDEF, True, "vendor=x")
LOAD = Load("decode-a#1", 0, 0, 0, 0.0, 1)


class Sink:
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def begin(self, parent: TraceContext | None, name: str) -> TraceContext:
        raise AssertionError("replicas begin no traces")

    def emit(self, spans: Iterable[Span]) -> None:
        self.spans += spans


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def prefill(traceparent: str = LEG.traceparent) -> PrefillRequest:
    return PrefillRequest("r-prefill-1", "m", (1, 2, 3), traceparent=traceparent, tracestate="vendor=x")


def decode() -> DecodeRequest:
    return DecodeRequest("r-decode-1", "m", (1, 2, 3), None, b"", traceparent=LEG.traceparent)


def test_a_prefill_and_its_save_hang_below_the_leg() -> None:
    sink, clock = Sink(), Clock()
    with ReplicaSpans(sink, "prefill-a#1", clock).leg(Role.PREFILL, prefill()) as leg:
        assert leg is not None
        clock.now += 2.0
        ticket = Ticket("t", "shm", "", "domain", "", 3, 1, 64, "", 0.0)
        leg.prefilled(PrefillResult(ticket, LOAD, 1, 250.0))
    engine, save = sink.spans
    assert (engine.name, save.name) == ("engine prefill", "handoff save")
    assert engine.parent == LEG
    assert save.parent == engine.context
    assert (engine.context.trace_id, engine.context.state) == (LEG.trace_id, "vendor=x")
    assert (engine.start_s, engine.end_s, save.start_s, save.end_s) == (10.0, 12.0, 11.75, 12.0)
    assert engine.attributes == {
        "heliostat.replica": "prefill-a#1",
        "heliostat.leg_id": "r-prefill-1",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 3,
        "heliostat.kv_domain": "domain",
        "heliostat.cached_tokens": 1,
        "heliostat.handoff.bytes": 64,
    }


def test_a_load_is_over_with_the_first_token() -> None:
    sink, clock = Sink(), Clock()
    spans = ReplicaSpans(sink, "decode-a#1", clock)
    with spans.leg(Role.DECODE, decode()) as leg:
        clock.now += 1.0
        spans.first(leg, TokenFrame((), False, LOAD, 500.0))
        clock.now += 3.0
    engine, load = sink.spans
    assert (load.name, load.start_s, load.end_s) == ("handoff load", 10.5, 11.0)
    assert engine.end_s == 14.0


def test_an_engine_hangs_its_own_below_the_replicas() -> None:
    sink = Sink()
    spans = ReplicaSpans(sink, "prefill-a#1")
    with spans.leg(Role.PREFILL, prefill()) as leg:
        inside = spans.below(leg, prefill())
    assert inside.traceparent == sink.spans[0].context.traceparent
    assert inside.tracestate == "vendor=x"


def test_a_leg_that_fails_says_why() -> None:
    sink = Sink()
    with (
        pytest.raises(HandoffFailedError),
        ReplicaSpans(sink, "decode-a#1").leg(Role.DECODE, decode()),
    ):
        raise HandoffFailedError("the KV is gone")
    assert sink.spans[0].failure == "the KV is gone"
    assert sink.spans[0].attributes["error.type"] == "HandoffFailedError"


def test_a_leg_that_is_cancelled_was_cut() -> None:
    sink = Sink()
    with (
        pytest.raises(asyncio.CancelledError),
        ReplicaSpans(sink, "decode-a#1").leg(Role.DECODE, decode()),
    ):
        raise asyncio.CancelledError
    assert sink.spans[0].attributes["heliostat.cut"] is True
    assert not sink.spans[0].failure


@pytest.mark.parametrize("traceparent", ["", LEG.traceparent[:-2] + "00", "nonsense"])
def test_a_leg_that_is_not_sampled_leaves_nothing(traceparent: str) -> None:
    sink = Sink()
    spans, request = ReplicaSpans(sink, "prefill-a#1"), prefill(traceparent)
    with spans.leg(Role.PREFILL, request) as leg:
        assert leg is None
        assert spans.below(leg, request) is request
    assert sink.spans == []


def test_without_a_sink_nothing_happens() -> None:
    with ReplicaSpans(None, "prefill-a#1").leg(Role.PREFILL, prefill()) as leg:
        assert leg is None
