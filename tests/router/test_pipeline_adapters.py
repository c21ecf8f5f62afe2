"""Adapters on a request's legs, and prompts that an ICaRus pool continues by itself."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from heliostat.errors import HandoffFailedError
from heliostat.wire import (
    Adapter,
    DecodeRequest,
    Load,
    PrefillRequest,
    PrefillResult,
    Ticket,
    TokenDelta,
    TokenFrame,
)
from router.pipeline import GenerateRequest, Pipeline
from router.progress import MAX_ATTEMPTS
from router.route import Route
from router.trace import Trace

LOAD = Load("replica", 0, 0, 0, 0.0, 1)
OUTPUT = (7, 8, 9)
WRITER, READER = Adapter("w", "/w"), Adapter("r", "/r")


class FakePrefillPool:
    """Hands out tickets t1, t2, …, whole from the beginning."""

    def __init__(self) -> None:
        self.requests: list[PrefillRequest] = []
        self.released: list[str] = []

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        self.requests.append(request)
        name, num_tokens = f"t{len(self.requests)}", len(request.token_ids)
        ticket = Ticket(name, "shm", "there", "d", "p", num_tokens, 1, 64, "p0", 0.0)
        return PrefillResult(ticket, LOAD, cached_tokens=2, save_ms=0.5)

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield await self.prefill(request)

    async def release(self, ticket: Ticket) -> None:
        self.released.append(ticket.ticket_id)


class FakeDecodePool:
    """Says that it has kept `held` tokens, its engine in blocks of 4.

    Its first `failures` answers break off after `frames_first`.
    """

    def __init__(self, held: int = 0, failures: int = 0, frames_first: int = 0) -> None:
        self.blamed = "a replica"
        self.requests: list[DecodeRequest] = []
        self.asked: list[tuple[int, ...]] = []
        self._held = held
        self._failures = failures
        self._frames_first = frames_first

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        self.asked.append(token_ids)
        return self._held

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        self.requests.append(request)
        left = OUTPUT[len(request.generated) :]
        for number, token in enumerate(left):
            if len(self.requests) <= self._failures and number == self._frames_first:
                raise HandoffFailedError("gone", self.blamed and f"d{len(self.requests)}", True)
            first = request.ticket is None and number == 0
            cached = self._held // 4 * 4 if first else None
            delta, finished = TokenDelta(0, (token,)), number == len(left) - 1
            yield TokenFrame((delta,), finished, LOAD, None, cached, (cached or 0) // 2)


class OpenDoor:
    """Admission that lets everybody in."""

    @asynccontextmanager
    async def slot(
        self,
        model: str,
        prompt_tokens: int,
        max_tokens: int,
        priority: int = 0,
        deadline_s: float | None = None,
        expected_tokens: int = 0,
    ) -> AsyncGenerator["OpenDoor", None]:
        yield self

    def served(self, tokens: int) -> None:
        """Nothing is counted."""

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        return max_tokens


async def served(
    prefill: FakePrefillPool,
    decode: FakeDecodePool,
    length: int = 10,
    *,
    local: int | None = None,
    early: bool = False,
    adapters: tuple[Adapter | None, Adapter | None] = (None, None),
) -> Trace:
    """The trace of one request, whose answer was whole."""
    route = Route(
        prefill,
        decode,
        prefill_adapter=adapters[0],
        decode_adapter=adapters[1],
        local_prefill_tokens=local,
    )
    request = GenerateRequest("r", "m", tuple(range(length)), b"", Trace(), max_tokens=3)
    frames = Pipeline({"m": route}, OpenDoor(), early=early).generate(request)
    assert tuple([frame.deltas[0].token_ids[0] async for frame in frames]) == OUTPUT
    return request.trace


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("adapters", [(None, None), (WRITER, None), (None, READER), (WRITER, READER)])
async def test_each_leg_carries_the_adapter_of_its_side(
    adapters: tuple[Adapter | None, Adapter | None], early: bool
) -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool()
    await served(prefill, decode, adapters=adapters, early=early)
    assert ([leg.adapter for leg in prefill.requests], [leg.adapter for leg in decode.requests]) == (
        [adapters[0]],
        [adapters[1]],
    )


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("held", "local"), [(6, 4), (8, 4), (10, 0), (0, 10)])
async def test_a_short_remainder_goes_straight_to_the_icarus_pool(held: int, local: int, early: bool) -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(held)
    trace = await served(prefill, decode, local=local, early=early, adapters=(None, READER))
    assert (prefill.requests, prefill.released) == ([], [])
    (leg,) = decode.requests
    assert (leg.ticket, leg.token_ids, leg.adapter) == (None, tuple(range(10)), READER)
    assert decode.asked == [tuple(range(10))]
    assert (trace.prefill_replica, trace.attempts) == (None, 1)
    assert trace.cached_tokens == held // 4 * 4, "what the engine says, and not what the index believes"
    assert trace.cross_model_tokens == trace.cached_tokens // 2, "what the replica says"


@pytest.mark.parametrize("blamed", ["a replica", ""])
async def test_a_second_attempt_prefills_whoever_was_to_blame(blamed: str) -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(9, failures=1)
    decode.blamed = blamed
    await served(prefill, decode, local=4)
    assert [leg.ticket is None for leg in decode.requests] == [True, False]


@pytest.mark.parametrize(("held", "local"), [(5, 4), (0, 9), (9, 0)])
async def test_a_long_remainder_is_prefilled(held: int, local: int) -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(held)
    trace = await served(prefill, decode, local=local)
    assert [leg.token_ids for leg in prefill.requests] == [tuple(range(9))]
    ticket = decode.requests[0].ticket
    assert ticket is not None and ticket.ticket_id == "t1"
    assert trace.cached_tokens == 2, "those of the prefill replica"


async def test_a_pool_that_is_not_icarus_computes_no_prompt_whatever_it_has_kept() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(held=10)
    await served(prefill, decode, local=None)
    assert (len(prefill.requests), decode.asked) == (1, [])


@pytest.mark.parametrize("frames_first", [0, 1])
async def test_after_a_failure_the_prompt_is_prefilled(frames_first: int) -> None:
    """What a lost replica had kept is gone, whatever the index still believes."""
    prefill, decode = FakePrefillPool(), FakeDecodePool(10, 1, frames_first)
    trace = await served(prefill, decode, local=4)
    first, second = decode.requests
    assert first.ticket is None
    assert second.ticket is not None and second.ticket.ticket_id == "t1"
    assert (second.generated, second.avoid) == (OUTPUT[:frames_first], {"d1"})
    assert [leg.token_ids for leg in prefill.requests] == [tuple(range(9))]
    assert (trace.attempts, trace.cached_tokens) == (2, 2)


async def test_every_attempt_asks_for_the_same_adapters() -> None:
    prefill, decode = FakePrefillPool(), FakeDecodePool(failures=MAX_ATTEMPTS - 1)
    await served(prefill, decode, adapters=(WRITER, READER))
    assert [leg.adapter for leg in prefill.requests] == [WRITER] * MAX_ATTEMPTS
    assert [leg.adapter for leg in decode.requests] == [READER] * MAX_ATTEMPTS
