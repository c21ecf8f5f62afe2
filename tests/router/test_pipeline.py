"""The pipeline over fake pools: order of the legs, repair, and what is released when."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from heliostat.errors import HandoffFailedError, OverloadedError, PrefillFailedError, UnknownModelError
from heliostat.wire import (
    DecodeRequest,
    Load,
    PrefillRequest,
    PrefillResult,
    Ticket,
    TokenDelta,
    TokenFrame,
)
from router.accounts import Outcome
from router.pipeline import GenerateRequest, Pipeline
from router.progress import MAX_ATTEMPTS
from router.route import Route
from router.trace import Trace

LOAD = Load("replica", 0, 0, 0, 0.0, 1)
OUTPUT = (7, 8, 9)


class FakePrefillPool:
    """Hands out tickets t1, t2, …; fails the first `failures` calls. The cache holds more after each."""

    def __init__(self, failures: int = 0) -> None:
        self.requests: list[PrefillRequest] = []
        self.released: list[str] = []
        self._failures = failures
        self.early = ""
        self.computed = asyncio.Event()

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        self.requests.append(request)
        if len(self.requests) <= self._failures:
            raise PrefillFailedError("lost")
        ticket = Ticket(
            f"t{len(self.requests)}", "shm", "there", "d", "p", len(request.token_ids), 1, 64, "p0", 0.0
        )
        cached = len(self.requests) + 1
        return PrefillResult(ticket, LOAD, cached, save_ms=0.5, cross_model_tokens=cached - 1)

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        result = await self.prefill(request)
        self.early = "begun"
        try:
            yield replace(result, ticket=replace(result.ticket, streamed=True), save_ms=0.0)
            await self.computed.wait()
            self.early = "done"
            yield result
        finally:
            self.early = self.early if self.early == "done" else "closed"

    async def release(self, ticket: Ticket) -> None:
        self.released.append(ticket.ticket_id)


class FakeDecodePool:
    """Streams what is left of OUTPUT; the first `failures` calls fail after `frames_first` frames each."""

    def __init__(self, failures: int = 0, frames_first: int = 0) -> None:
        self.requests: list[DecodeRequest] = []
        self.closed = 0
        self.held = 0
        self._failures = failures
        self._frames_first = frames_first

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        return self.held

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        self.requests.append(request)
        fails = len(self.requests) <= self._failures
        try:
            left = OUTPUT[len(request.generated) :]
            for number, token in enumerate(left):
                if fails and number == self._frames_first:
                    raise HandoffFailedError("gone", f"d{len(self.requests)}", True)
                last = number == len(left) - 1
                delta = TokenDelta(0, (token,), None, "length" if last else None, None)
                yield TokenFrame((delta,), last, LOAD, 0.25 if number == 0 else None)
        finally:
            self.closed += 1


@dataclass
class FakeSlot:
    tokens: int = 0

    def served(self, tokens: int) -> None:
        self.tokens += tokens


class FakeAdmission:
    """Lets everybody in, unless it is closed, and remembers what was served."""

    def __init__(self, closed: bool = False) -> None:
        self.slots: list[FakeSlot] = []
        self.asked: list[tuple[int, float | None, int]] = []
        self.inside = 0
        self._closed = closed

    @asynccontextmanager
    async def slot(
        self,
        model: str,
        prompt_tokens: int,
        max_tokens: int,
        priority: int = 0,
        deadline_s: float | None = None,
        expected_tokens: int = 0,
    ) -> AsyncGenerator[FakeSlot, None]:
        self.asked.append((priority, deadline_s, expected_tokens))
        if self._closed:
            raise OverloadedError("full", 2.0)
        self.slots.append(FakeSlot())
        self.inside += 1
        try:
            yield self.slots[-1]
        finally:
            self.inside -= 1

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        return min(known or 2, max_tokens)


class FakeBook:
    """Remembers how requests ended, and which prefills were said to have saved something."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.prefills: list[tuple[str, int, int]] = []

    def prefilled(self, model: str, trace: Trace, load: Load) -> None:
        self.prefills.append((model, trace.cached_tokens, trace.cross_model_tokens))

    def ended(self, model: str, token_ids: tuple[int, ...], trace: Trace, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def request(length: int = 4, model: str = "m", bound: str = "") -> GenerateRequest:
    return GenerateRequest("r", model, tuple(range(length)), b"", Trace(), max_tokens=3, bound=bound)


def pipeline(prefill: FakePrefillPool, decode: FakeDecodePool, *, early: bool = False) -> Pipeline:
    return Pipeline({"m": Route(prefill, decode)}, FakeAdmission(), FakeBook(), early=early)


async def tokens(pipe: Pipeline, req: GenerateRequest) -> tuple[int, ...]:
    return tuple([token async for frame in pipe.generate(req) for token in frame.deltas[0].token_ids])


async def test_prefill_gets_all_but_the_last_token_and_decode_the_whole_prompt() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool()
    assert await tokens(pipeline(prefill, decode), request(4)) == OUTPUT
    assert [leg.token_ids for leg in prefill.requests] == [(0, 1, 2)]
    assert [leg.token_ids for leg in decode.requests] == [(0, 1, 2, 3)]
    assert decode.requests[0].ticket is not None
    assert prefill.released == [], "the decode replica released the name itself"


async def test_a_prompt_of_one_token_needs_no_prefill() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool()
    assert await tokens(pipeline(prefill, decode), request(1)) == OUTPUT
    assert prefill.requests == []
    assert decode.requests[0].ticket is None


async def test_a_failed_handoff_is_repaired_by_a_fresh_prefill() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(failures=1)
    req = request()
    assert await tokens(pipeline(prefill, decode), req) == OUTPUT
    assert [leg.ticket.ticket_id for leg in decode.requests if leg.ticket] == ["t1", "t2"]
    assert prefill.released == ["t1"]
    assert req.trace.failures == ["gone"]


async def test_a_failed_prefill_is_tried_again() -> None:
    prefill, decode = FakePrefillPool(failures=1), FakeDecodePool()
    assert await tokens(pipeline(prefill, decode), request()) == OUTPUT


async def test_legs_of_a_repaired_request_have_ids_of_their_own() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(failures=1)
    await tokens(pipeline(prefill, decode), request())
    assert len({leg.request_id for leg in prefill.requests}) == 2


@pytest.mark.parametrize(
    "pools", [(FakePrefillPool(9), FakeDecodePool()), (FakePrefillPool(), FakeDecodePool(9))]
)
async def test_failures_without_end_are_an_error(pools: tuple[FakePrefillPool, FakeDecodePool]) -> None:
    with pytest.raises((PrefillFailedError, HandoffFailedError)):
        await tokens(pipeline(*pools), request())
    assert len(pools[0].requests) == MAX_ATTEMPTS


async def test_a_lost_stream_goes_on_elsewhere_without_gap_or_repetition() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(failures=1, frames_first=1)
    req = request()
    assert await tokens(pipeline(prefill, decode), req) == OUTPUT
    first, second = decode.requests
    assert (first.generated, second.generated) == ((), OUTPUT[:1])
    assert (first.max_tokens, second.max_tokens) == (3, 2)
    assert second.avoid == {"d1"}
    assert second.ticket is not None and second.ticket.ticket_id == "t2", "the prompt is prefilled again"
    assert prefill.released == [], "the lost replica had read t1"
    assert (req.trace.output_tokens, req.trace.attempts) == (3, 2)


async def test_a_stream_may_be_lost_as_often_as_it_makes_progress() -> None:
    decode = FakeDecodePool(failures=2, frames_first=1)
    assert await tokens(pipeline(FakePrefillPool(), decode), request()) == OUTPUT
    assert [leg.generated for leg in decode.requests] == [(), OUTPUT[:1], OUTPUT[:2]]
    assert decode.requests[2].avoid == {"d1", "d2"}


async def test_an_answer_that_is_bound_to_its_replica_ends_with_it() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(failures=1, frames_first=1)
    seen = []
    with pytest.raises(HandoffFailedError, match="gone; the answer cannot be continued elsewhere: a seed"):
        async for frame in pipeline(prefill, decode).generate(request(bound="a seed")):
            seen.extend(frame.deltas[0].token_ids)
    assert seen == [7]
    assert len(decode.requests) == 1


async def test_a_bound_answer_is_repaired_before_its_first_token() -> None:
    decode = FakeDecodePool(failures=1)
    assert await tokens(pipeline(FakePrefillPool(), decode), request(bound="a seed")) == OUTPUT


async def test_what_was_served_is_booked_and_the_slot_given_back() -> None:
    admission = FakeAdmission()
    pipe = Pipeline({"m": Route(FakePrefillPool(), FakeDecodePool())}, admission, FakeBook())
    async with aclosing(pipe.generate(request())) as frames:
        await anext(frames)
        assert (admission.inside, admission.slots[0].tokens) == (1, 1)
        assert [frame.finished async for frame in frames] == [False, True]
    assert (admission.inside, admission.slots[0].tokens) == (0, 3)


async def test_who_is_not_admitted_costs_nothing() -> None:
    prefill = FakePrefillPool()
    book = FakeBook()
    pipe = Pipeline({"m": Route(prefill, FakeDecodePool())}, FakeAdmission(closed=True), book)
    with pytest.raises(OverloadedError, match="full"):
        await tokens(pipe, request())
    assert prefill.requests == []
    assert book.outcomes == [Outcome.REFUSED]


async def test_every_request_is_booked_once_with_its_outcome() -> None:
    book = FakeBook()
    fine = Pipeline({"m": Route(FakePrefillPool(), FakeDecodePool())}, FakeAdmission(), book)
    await tokens(fine, request())
    async with aclosing(fine.generate(request())) as frames:
        await anext(frames)
    broken = Pipeline({"m": Route(FakePrefillPool(9), FakeDecodePool())}, FakeAdmission(), book)
    with pytest.raises(PrefillFailedError):
        await tokens(broken, request())
    assert book.outcomes == [Outcome.FINISHED, Outcome.CANCELLED, Outcome.FAILED]


async def test_closing_the_stream_closes_the_decode_leg() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool()
    async with aclosing(pipeline(prefill, decode).generate(request())) as frames:
        await anext(frames)
    assert decode.closed == 1


async def test_the_trace_names_replicas_and_costs() -> None:
    req = request()
    await tokens(pipeline(FakePrefillPool(), FakeDecodePool()), req)
    trace = req.trace
    assert (trace.prefill_replica, trace.decode_replica) == ("replica", "replica")
    assert (trace.cached_tokens, trace.handoff_bytes, trace.save_ms, trace.load_ms) == (2, 64, 0.5, 0.25)


async def test_what_a_prefill_saved_is_told_before_the_first_frame_and_once() -> None:
    """The prefill after a failed handoff finds what the first one has computed, which saved nothing."""
    book, req = FakeBook(), request()
    pipe = Pipeline({"m": Route(FakePrefillPool(), FakeDecodePool(failures=1))}, FakeAdmission(), book)
    frames = pipe.generate(req)
    await anext(frames)
    assert book.prefills == [("m", 2, 1)]
    assert (req.trace.attempts, req.trace.cached_tokens, req.trace.cross_model_tokens) == (2, 2, 1)
    await frames.aclose()


async def test_an_early_choice_knows_what_was_saved_before_the_prefill_is_done() -> None:
    book, req = FakeBook(), request()
    pipe = Pipeline({"m": Route(FakePrefillPool(), FakeDecodePool())}, FakeAdmission(), book, early=True)
    frames = pipe.generate(req)
    await anext(frames)
    assert book.prefills == [("m", 2, 1)]
    await frames.aclose()


async def test_hints_reach_admission_and_both_legs() -> None:
    prefill, decode, admission = (
        FakePrefillPool(),
        FakeDecodePool(failures=1, frames_first=1),
        FakeAdmission(),
    )
    hinted = replace(
        request(),
        priority=-3,
        deadline_s=1.5,
        session="ctx",
        expected_tokens=3,
        reuse_soon=True,
        max_tokens=8,
    )
    await tokens(Pipeline({"m": Route(prefill, decode)}, admission, FakeBook()), hinted)
    assert admission.asked == [(-3, 1.5, 3)]
    assert all((leg.session, leg.reuse_soon) == ("ctx", True) for leg in prefill.requests)
    assert [leg.expected_tokens for leg in decode.requests] == [3, 2], "one of three has come"


async def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownModelError, match="nope"):
        await tokens(pipeline(FakePrefillPool(), FakeDecodePool()), request(model="nope"))


async def test_an_early_choice_decodes_while_the_last_chunk_is_computed() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool()
    req = request()
    frames = pipeline(prefill, decode, early=True).generate(req)
    assert (await anext(frames)).deltas[0].token_ids == (OUTPUT[0],)
    assert prefill.early == "begun"
    assert decode.requests[0].ticket is not None and decode.requests[0].ticket.streamed
    prefill.computed.set()
    assert [frame.deltas[0].token_ids[0] async for frame in frames] == list(OUTPUT[1:])
    assert prefill.early == "done"
    assert req.trace.cached_tokens == 2
    assert prefill.released == []


async def test_an_early_prefill_ends_with_its_request() -> None:
    prefill = FakePrefillPool()
    frames = pipeline(prefill, FakeDecodePool(), early=True).generate(request())
    await anext(frames)
    await frames.aclose()
    assert prefill.early == "closed"


async def test_an_early_prefill_that_fails_is_repaired() -> None:
    prefill, decode = FakePrefillPool(failures=1), FakeDecodePool()
    prefill.computed.set()
    frames = pipeline(prefill, decode, early=True).generate(request())
    assert [frame.deltas[0].token_ids[0] async for frame in frames] == list(OUTPUT)
    assert len(prefill.requests) == 2
