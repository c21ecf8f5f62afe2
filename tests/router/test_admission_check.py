"""`check`: refusals before any byte of an answer, each with a Retry-After that its own limit gives.

And what admission learns and counts, from which waits are expected.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pydantic import JsonValue

from heliostat.errors import InvalidRequestError, OverloadedError, UnknownModelError
from heliostat.spec import Spec
from heliostat.wire import Role
from router.admission import Admission, PoolFigures, Reason


@dataclass
class Bench:
    """A decode pool `shared` and a prefill pool `home`, whose figures and clock a test sets."""

    decode: PoolFigures = field(default_factory=lambda: PoolFigures(replicas=1, fresh=1, slots=4))
    prefill: PoolFigures = field(default_factory=lambda: PoolFigures(replicas=1, fresh=1))
    now: float = 100.0

    def slots(self, role: Role, pool: str) -> PoolFigures:
        return {(Role.DECODE, "shared"): self.decode, (Role.PREFILL, "home"): self.prefill}[role, pool]

    def clock(self) -> float:
        return self.now

    def admission(self, routers: int = 1, replicas: int = 1, **limits: dict[str, JsonValue]) -> Admission:
        models = {name: {"prefill": "home", "decode": "shared", "limits": limits[name]} for name in limits}
        pool = {"weights": "org/base"}
        raw = {"family": {"base": "org/base"}, "prefill": {"home": pool}}
        raw |= {"decode": {"shared": pool | {"replicas": {"min": 1, "max": replicas}}}}
        return Admission(Spec.model_validate(raw | {"models": models}), self, self.clock, routers)

    async def serve(self, admission: Admission, model: str, seconds: float, prompt: int = 10) -> None:
        """One request of 200 output tokens that holds its slot for so long."""
        async with admission.slot(model, prompt, 10) as slot:
            self.now += seconds
            slot.served(200)


@asynccontextmanager
async def requests(admission: Admission, *models: str) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Requests that hold their slots, or wait for one, while the block runs."""

    async def one(model: str) -> None:
        async with admission.slot(model, 10, 10):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(one(model)) for model in models]
    await asyncio.sleep(0)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def refused(admission: Admission, model: str, n: int = 1) -> OverloadedError:
    with pytest.raises(OverloadedError) as caught:
        admission.check(model, n)
    return caught.value


async def test_a_full_queue_refuses_with_the_time_in_which_a_place_comes() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=2))
    admission = bench.admission(a={"max_queued": 3}, b={})
    await bench.serve(admission, "a", seconds=8.0)  # so two slots grant one request in 4 s
    async with requests(admission, *"aaaaa"):
        error = refused(admission, "a", n=2)
        assert error.retry_after_s == pytest.approx(2 * 4.0)
        assert "`shared`" in error.message and "limits.max_queued" in error.message
        assert error.message.endswith("Try again in 8.0 s.")
        async with requests(admission, "b"):
            assert refused(admission, "a", n=2).retry_after_s == pytest.approx(2 * 8.0)  # half are b's now
        admission.check("b")
        async with requests(admission, "a") as (late,):  # it had passed `check` before the queue was full
            with pytest.raises(OverloadedError, match="max_queued"):
                await late
    assert admission.counts("a").refused[Reason.QUEUE_FULL] == 5


async def test_weights_count_in_the_expected_wait() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=1))
    admission = bench.admission(a={"max_queued": 0, "weight": 3}, b={})
    await bench.serve(admission, "a", seconds=6.0)
    async with requests(admission, *"bb"):
        assert refused(admission, "a").retry_after_s == pytest.approx(6.0 * 4 / 3)


async def test_without_history_a_refusal_says_the_longest_wait() -> None:
    admission = Bench(decode=PoolFigures(1, 1, slots=1)).admission(a={"max_queued": 0, "queue_s": 12})
    async with requests(admission, "a"):
        assert refused(admission, "a").retry_after_s == 12.0


async def test_a_concurrency_limit_counts_in_the_expected_wait() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=100))
    admission = bench.admission(a={"concurrency": 2, "max_queued": 1})
    await bench.serve(admission, "a", seconds=8.0)
    async with requests(admission, *"aaa"):
        assert refused(admission, "a").retry_after_s == pytest.approx(4.0)


async def test_nobody_is_let_in_to_wait_longer_than_allowed() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=1))
    admission = bench.admission(a={"queue_s": 30})
    await bench.serve(admission, "a", seconds=12.0)
    async with requests(admission, *"aaa"):
        error = refused(admission, "a")
        assert error.retry_after_s == pytest.approx(3 * 12.0 - 30.0)
        assert "would wait longer than 30 s (limits.queue_s)" in error.message


async def test_a_saturated_prefill_pool_refuses_too() -> None:
    bench = Bench(prefill=PoolFigures(1, 1, prefill_wait_ms=35_000))
    admission = bench.admission(a={"queue_s": 30})
    error = refused(admission, "a")
    assert error.retry_after_s == pytest.approx(5.0)
    assert "prefill pool `home`" in error.message
    bench.prefill = PoolFigures(1, 0, prefill_wait_ms=float("inf"))  # nobody answers: not a matter of limits
    admission.pump()
    admission.check("a")


async def test_the_request_rate() -> None:
    bench = Bench()
    admission = bench.admission(a={"requests_per_s": 2})
    admission.check("a", n=2)
    error = refused(admission, "a")
    assert error.retry_after_s == pytest.approx(0.5)
    assert "2 requests/s (limits.requests_per_s)" in error.message
    bench.now += 0.5
    admission.check("a")
    assert admission.counts("a").refused[Reason.REQUEST_RATE] == 1


async def test_the_token_rate_is_paid_back_before_the_next_request() -> None:
    bench = Bench()
    admission = bench.admission(a={"tokens_per_s": 100})
    admission.check("a")
    await bench.serve(admission, "a", seconds=0.0, prompt=300)
    assert refused(admission, "a").retry_after_s == pytest.approx(4.0)  # 500 tokens, of which 100 were there
    bench.now += 4.0
    admission.check("a")


async def test_limits_are_divided_by_the_routers() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=100))
    admission = bench.admission(routers=4, a={"concurrency": 8, "requests_per_s": 8}, b={"concurrency": 2})
    async with requests(admission, *"aaabb"):
        running = [admission.counts(model).running for model in "ab"]
        assert running == [2, 1]
    admission.check("a", n=2)
    assert refused(admission, "a").retry_after_s == pytest.approx(0.5)


async def test_a_busy_pool_does_not_refuse_what_may_wait() -> None:
    admission = Bench(decode=PoolFigures(1, 1, slots=1)).admission(a={}, none={"max_queued": 0})
    admission.check("none")
    async with requests(admission, "a"):
        admission.check("a")
        refused(admission, "none")


def test_an_n_that_will_fit_at_no_time_is_the_requests_own_fault() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=8))
    admission = bench.admission(a={"max_queued": 3}, b={}, c={"max_queued": 3, "concurrency": 2})
    admission.check("a", n=8)
    with pytest.raises(InvalidRequestError) as caught:
        admission.check("a", n=9)
    assert str(caught.value) == (
        "`n` is 9, which the model `a` can never serve: at most 8 of its requests run at a time in the "
        "decode pool `shared`, and at most 3 wait (limits.max_queued). Ask for at most 8 at a time."
    )
    admission.check("b", n=1000)
    with pytest.raises(InvalidRequestError, match="at most 1000 at a time"):
        admission.check("b", n=1001)
    with pytest.raises(InvalidRequestError, match="at most 2 of its requests"):
        admission.check("c", n=4)
    assert sum(admission.counts("a").refused.values()) == 0, "no limit was reached"


async def test_an_n_that_only_finds_no_room_now_may_come_again() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=8))
    admission = bench.admission(a={"max_queued": 3})
    async with requests(admission, "a"):
        assert refused(admission, "a", n=8).retry_after_s > 0
    bench.decode = PoolFigures(2, 1, slots=8)  # one of two replicas is silent for a while
    admission.pump()
    assert refused(admission, "a", n=12).retry_after_s > 0


def test_a_pool_that_grows_may_take_an_n_later() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=8))
    admission = bench.admission(replicas=2, a={"max_queued": 3})
    assert refused(admission, "a", n=16).retry_after_s > 0
    with pytest.raises(InvalidRequestError, match="at most 16 "):
        admission.check("a", n=17)
    with pytest.raises(InvalidRequestError, match="at most 4 "):
        bench.admission(routers=4, replicas=2, a={"max_queued": 3}).check("a", n=5)


def test_nobody_knows_what_a_pool_takes_that_has_never_answered() -> None:
    bench = Bench(decode=PoolFigures(1, 0))
    bench.admission(a={"max_queued": 0}).check("a", n=5000)


def test_an_unknown_model_is_not_a_matter_of_load() -> None:
    with pytest.raises(UnknownModelError):
        Bench().admission(a={}).check("b")


async def test_the_expected_output_follows_the_recent_answers() -> None:
    admission = Bench().admission(a={}, b={})
    assert (admission.expected_tokens("a", 0), admission.expected_tokens("a", 50)) == (128, 50)
    async with admission.slot("a", 10, 0) as slot:
        slot.served(150)
        slot.served(50)
    assert (admission.expected_tokens("a", 0), admission.expected_tokens("b", 0)) == (200, 128)
    async with admission.slot("a", 10, 0) as slot:
        slot.served(100)
    assert admission.expected_tokens("a", 1000) == 190
    async with admission.slot("a", 10, 0):
        pass  # failed before its first token
    assert admission.expected_tokens("a", 1000) == 190


async def test_a_failure_gives_the_slot_back() -> None:
    admission = Bench().admission(a={})
    with pytest.raises(RuntimeError):
        async with admission.slot("a", 10, 10) as slot:
            raise RuntimeError
    slot.served(5)  # a frame that comes too late
    counts = admission.counts("a")
    assert (counts.running, counts.admitted, counts.prompt_tokens, counts.output_tokens) == (0, 1, 10, 0)


async def test_ten_thousand_requests_leave_nothing_behind() -> None:
    many: dict[str, dict[str, JsonValue]] = {f"m{i}": {"max_queued": 10_000} for i in range(8)}
    admission = Bench(decode=PoolFigures(1, 1, slots=1)).admission(1, **many)

    async def one(i: int) -> None:
        async with admission.slot(f"m{i % 8}", 10, 10) as slot:
            slot.served(10)

    async with admission.slot("m0", 10, 10):  # everything waits at first, so that the queue is long
        tasks = [asyncio.create_task(one(i)) for i in range(10_000)]
        await asyncio.sleep(0)
        assert sum(admission.counts(f"m{i}").queued for i in range(8)) == 10_000
    await asyncio.gather(*tasks)
    for i in range(8):
        counts = admission.counts(f"m{i}")
        assert (counts.queued, counts.running, counts.output_tokens) == (0, 0, 12_500)
