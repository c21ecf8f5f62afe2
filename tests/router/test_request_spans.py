"""Requests over the pipeline with fake pools: which spans OpenTelemetry's SDK gets, and when none."""

import logging
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from heliostat.errors import HandoffFailedError, OverloadedError, PrefillFailedError
from heliostat.wire import DecodeRequest, Load, PrefillRequest, PrefillResult, Ticket, TokenDelta, TokenFrame
from router.pipeline import GenerateRequest, Pipeline
from router.request_log import RequestLog, request_fields
from router.requests import OpenRequest, RequestDesk
from router.route import Route
from router.route_notes import RouteNotes
from router.trace import Trace
from router.tracing.export import SpanSink, resource, sampler
from router.tracing.spans import HttpRequest

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"
SECRET = (4711, 4712, 4713, 4714)
ANSWER = (815, 816, 817)
PATH = "/v1/completions"


def load(replica: str) -> Load:
    return Load(replica, 0, 0, 0, 0.0, 1)


class Pools:
    """Both pools; decode legs fail `lost` times, each after one token, prefills `failed` times."""

    def __init__(self, lost: int = 0, failed: int = 0) -> None:
        self.prefills: list[PrefillRequest] = []
        self.decodes: list[DecodeRequest] = []
        self._lost = lost
        self._failed = failed

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        self.prefills.append(request)
        number = len(self.prefills)
        if number <= self._failed:
            raise PrefillFailedError(f"p{number}: the replica was lost", f"p{number}", True)
        ticket = Ticket(f"t{number}", "shm", "", "domain", "", len(request.token_ids), 1, 64, "", 0.0)
        return PrefillResult(ticket, load(f"p{number}"), 2, 0.5)

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield await self.prefill(request)

    async def release(self, ticket: Ticket) -> None:
        """Nothing is kept."""

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        return 0

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        self.decodes.append(request)
        number = len(self.decodes)
        left = ANSWER[len(request.generated) :]
        for position, token in enumerate(left):
            if position == 1 and number <= self._lost:
                raise HandoffFailedError(f"d{number}: the replica was lost", f"d{number}", True)
            last = position == len(left) - 1
            delta = TokenDelta(0, (token,), None, "length" if last else None, None)
            yield TokenFrame((delta,), last, load(f"d{number}"), 0.25 if position == 0 else None)


class Slot:
    def served(self, tokens: int) -> None:
        """Fine."""


@dataclass
class Door:
    """Lets everybody in unless it is closed."""

    closed: bool = False

    @asynccontextmanager
    async def slot(self, *_: object) -> AsyncGenerator[Slot, None]:
        if self.closed:
            raise OverloadedError("full", 2.0)
        yield Slot()

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        return 1


@dataclass
class Bench:
    """A desk over the SDK, its spans in memory."""

    ratio: float | None = 1.0
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    notes: RouteNotes = field(default_factory=RouteNotes)

    def __post_init__(self) -> None:
        self.sink = SpanSink(
            SimpleSpanProcessor(self.exporter), resource("heliostat-router", "r0"), sampler(self.ratio)
        )
        self.desk = RequestDesk(self.sink, RequestLog("json"), self.notes.take)

    async def run(
        self, pools: Pools, *, traceparent: str = PARENT, closed: bool = False, early: bool = False
    ) -> OpenRequest:
        headers = {"x-request-id": "mine", "traceparent": traceparent, "tracestate": "vendor=x"}
        opened = self.desk.begin(PATH, headers)
        trace = Trace(started_s=opened.request.started_s)
        opened.prompt(trace)
        pipe = Pipeline({"m": Route(pools, pools)}, Door(closed), early=early)
        request = GenerateRequest("cmpl-mine-0", "m", SECRET, b"", trace, max_tokens=3)
        status = 200
        try:
            async with aclosing(pipe.generate(request)) as frames:
                async for _ in frames:
                    pass
        except (OverloadedError, HandoffFailedError, PrefillFailedError) as error:
            status = error.status
        finally:
            opened.ended()
        self.desk.end(opened, status)
        return opened

    def spans(self) -> dict[str, ReadableSpan]:
        """By name and attempt."""
        spans = self.exporter.get_finished_spans()
        return {named(span): span for span in spans}


def named(span: ReadableSpan) -> str:
    attempt = (span.attributes or {}).get("heliostat.attempt")
    return f"{span.name} {attempt}" if attempt else span.name


def parent_of(span: ReadableSpan, spans: Iterable[ReadableSpan]) -> str:
    assert span.parent is not None
    return next((named(s) for s in spans if s.context.span_id == span.parent.span_id), "outside")


async def test_a_request_is_one_tree_below_its_clients_span() -> None:
    bench, pools = Bench(), Pools()
    await bench.run(pools)
    spans = bench.spans()
    assert {name: parent_of(span, spans.values()) for name, span in spans.items()} == {
        "POST /v1/completions": "outside",
        "text_completion m": "POST /v1/completions",
        "admit": "text_completion m",
        "prefill 1": "text_completion m",
        "decode 1": "text_completion m",
    }
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {PARENT[3:35]}
    root = spans["POST /v1/completions"]
    assert root.parent is not None and f"{root.parent.span_id:016x}" == PARENT[36:52]
    assert (root.kind, root.parent.is_remote) == (SpanKind.SERVER, True)
    assert {span.context.trace_state.to_header() for span in spans.values()} == {"vendor=x"}


async def test_attributes_are_those_of_the_conventions_and_ours() -> None:
    bench = Bench()
    await bench.run(Pools())
    whole = bench.spans()["text_completion m"].attributes
    assert whole is not None
    assert {key: whole[key] for key in whole if key != "gen_ai.response.time_to_first_chunk"} == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "heliostat",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "heliostat.request_id": "mine",
        "heliostat.outcome": "finished",
        "heliostat.attempts": 1,
        "heliostat.handoff.bytes": 64,
        "heliostat.prefill.replica": "p1",
        "heliostat.decode.replica": "d1",
    }
    prefill = bench.spans()["prefill 1"].attributes
    assert prefill is not None
    assert (prefill["heliostat.kv_domain"], prefill["heliostat.handoff.save_ms"]) == ("domain", 0.5)


async def test_replicas_get_the_context_of_their_leg() -> None:
    bench, pools = Bench(), Pools()
    await bench.run(pools)
    for name, request in (("prefill 1", pools.prefills[0]), ("decode 1", pools.decodes[0])):
        context = bench.spans()[name].context
        assert request.traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
        assert request.tracestate == "vendor=x"


async def test_every_attempt_of_a_lost_stream_is_there_and_the_lost_one_says_why() -> None:
    bench = Bench()
    await bench.run(Pools(lost=1))
    spans = bench.spans()
    assert {"prefill 1", "decode 1", "prefill 2", "decode 2"} < spans.keys()
    lost, good = spans["decode 1"], spans["decode 2"]
    assert (lost.status.status_code, lost.status.description) == (
        StatusCode.ERROR,
        "d1: the replica was lost",
    )
    assert lost.attributes is not None and good.attributes is not None
    assert lost.attributes["error.type"] == "HandoffFailedError"
    assert [span.attributes["heliostat.replica"] for span in (lost, good)] == ["d1", "d2"]
    assert [span.attributes["heliostat.output_tokens"] for span in (lost, good)] == [1, 2]
    assert good.status.status_code is StatusCode.UNSET


async def test_a_prefill_that_failed_is_there_with_its_replica() -> None:
    bench = Bench()
    await bench.run(Pools(failed=1))
    span = bench.spans()["prefill 1"]
    assert span.attributes is not None
    assert (span.attributes["heliostat.replica"], span.attributes["error.type"]) == (
        "p1",
        "PrefillFailedError",
    )
    assert "decode 1" not in bench.spans() and "decode 2" in bench.spans()


async def test_an_early_choice_has_the_same_spans() -> None:
    bench = Bench()
    await bench.run(Pools(), early=True)
    assert {"prefill 1", "decode 1", "admit"} < bench.spans().keys()


async def test_who_is_refused_ends_in_admission() -> None:
    bench = Bench()
    await bench.run(Pools(), closed=True)
    spans = bench.spans()
    assert spans.keys() == {"POST /v1/completions", "text_completion m", "admit"}
    assert spans["admit"].status.description == "OverloadedError"
    attributes = spans["text_completion m"].attributes
    assert attributes is not None and attributes["heliostat.outcome"] == "refused"


async def test_how_a_leg_found_its_replica_is_a_span_below_it() -> None:
    bench, pools = Bench(), Pools()
    bench.notes.chosen("cmpl-mine-0-decode-1", "d1", 3, 1.5, "least load")
    await bench.run(pools)
    route = bench.spans()["route"]
    assert parent_of(route, bench.spans().values()) == "decode 1"
    assert route.attributes == {
        "heliostat.replica": "d1",
        "heliostat.route.candidates": 3,
        "heliostat.route.cost": 1.5,
        "heliostat.route.reason": "least load",
        "heliostat.route.choices": 1,
    }


@pytest.mark.parametrize(("traceparent", "ratio"), [(UNSAMPLED, 1.0), ("", 0.0)])
async def test_what_is_not_sampled_leaves_no_span_here_or_in_replicas(traceparent: str, ratio: float) -> None:
    bench, pools = Bench(ratio), Pools()
    await bench.run(pools, traceparent=traceparent)
    assert bench.spans() == {}
    assert pools.decodes[0].traceparent.endswith("-00"), "so that a replica starts no trace of its own"


async def test_a_sampled_parent_comes_before_the_ratio() -> None:
    bench = Bench(0.0)
    await bench.run(Pools())
    assert "decode 1" in bench.spans()


async def test_spans_lie_in_each_other_in_time() -> None:
    bench = Bench()
    await bench.run(Pools(lost=1))
    spans = bench.spans()
    ids = {span.context.span_id: span for span in spans.values()}
    for span in spans.values():
        assert span.start_time is not None and span.end_time is not None
        assert span.parent is not None
        if outer := ids.get(span.parent.span_id):
            assert outer.start_time is not None and outer.end_time is not None
            assert outer.start_time <= span.start_time <= span.end_time <= outer.end_time, span.name


async def test_the_line_of_a_request_has_its_fate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="router.request_log")
    opened = await Bench().run(Pools(lost=1))
    (record,) = caplog.records
    fields = request_fields(opened.request)
    assert fields.items() <= record.__dict__.items()
    assert (record.getMessage(), fields["request_id"], fields["trace_id"]) == (
        "request",
        "mine",
        PARENT[3:35],
    )
    assert (fields["model"], fields["outcome"], fields["status"]) == ("m", "finished", 200)
    assert (fields["prefill_replica"], fields["decode_replica"]) == ("p2", "d2")
    assert (fields["prompt_tokens"], fields["output_tokens"], fields["attempts"]) == (4, 3, 2)
    assert fields["failures"] == ["d1: the replica was lost"]
    assert {"admit_ms", "prefill_ms", "first_token_ms", "ttft_ms", "duration_ms"} < fields.keys()


async def test_no_token_of_prompt_or_answer_is_in_spans_or_lines() -> None:
    bench = Bench()
    opened = await bench.run(Pools(lost=1))
    said = "".join(span.to_json() for span in bench.exporter.get_finished_spans())
    said += str(request_fields(opened.request))
    assert "p2" in said, "we look in the right place"
    for token in (*SECRET, *ANSWER):
        # As a number of its own: span ids and times may have its digits in them.
        assert f": {token}" not in said and f"{token}, " not in said and f"{token}]" not in said


def test_a_request_that_did_not_come_to_a_prompt_is_judged_by_its_status() -> None:
    def outcome(status: int) -> object:
        return request_fields(HttpRequest(PATH, "r", 1.0, status=status, ended_s=2.0))["outcome"]

    assert [outcome(status) for status in (0, 200, 400, 404, 429, 500, 503)] == [
        "cancelled",
        "finished",
        "failed",
        "failed",
        "refused",
        "failed",
        "unavailable",
    ]


def test_a_request_is_reported_once_when_its_last_prompt_is_over() -> None:
    reported: list[HttpRequest] = []

    class Log:
        def write(self, request: HttpRequest) -> None:
            reported.append(request)

    desk = RequestDesk(None, Log(), lambda leg_id: None)
    opened = desk.begin(PATH, {"traceparent": PARENT})
    opened.prompt(Trace())
    opened.prompt(Trace())
    opened.ended()
    desk.end(opened, 200)
    assert reported == [], "one prompt still runs: its client is gone, its leg is being closed"
    opened.ended()
    assert reported == [opened.request]
    assert opened.request.trace_id == PARENT[3:35], "named in the log although no spans are made"


def test_routers_and_replicas_without_traces_do_not_import_opentelemetry() -> None:
    script = (
        "import os, sys\n"
        "import router.requests, router.request_log, router.pipeline, router.choice\n"
        "from router.tracing.setup import start_traces\n"
        "assert start_traces(None, {}, 'service', 'instance') is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
