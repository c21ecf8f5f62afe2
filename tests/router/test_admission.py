"""Slots as the pipeline gets them: in fair order, in time, and given back whatever happens."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from pydantic import JsonValue

from heliostat.errors import OverloadedError
from heliostat.spec import Spec
from heliostat.wire import Role
from router.admission import Admission, ModelCounts, PoolFigures, Reason, Slot


@dataclass
class Bench:
    """A decode pool `shared`, whose figures and clock a test sets."""

    decode: PoolFigures = field(default_factory=lambda: PoolFigures(replicas=1, fresh=1, slots=4))
    now: float = 100.0

    def slots(self, role: Role, pool: str) -> PoolFigures:
        return self.decode if role is Role.DECODE else PoolFigures()

    def clock(self) -> float:
        return self.now

    def admission(self, **limits: dict[str, JsonValue]) -> Admission:
        models = {name: {"prefill": "home", "decode": "shared", "limits": limits[name]} for name in limits}
        pool = {"weights": "org/base"}
        raw = {"family": {"base": "org/base"}, "prefill": {"home": pool}, "decode": {"shared": pool}}
        return Admission(Spec.model_validate(raw | {"models": models}), self, self.clock)


@dataclass(eq=False)
class Request:
    """One request as a task: it waits for its slot, holds it, and leaves when it is told to."""

    admission: Admission
    model: str
    prompt: int = 10
    max_tokens: int = 10
    priority: int = 0
    deadline_s: float | None = None
    slot: Slot | None = None
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None

    async def run(self) -> None:
        async with self.admission.slot(
            self.model, self.prompt, self.max_tokens, self.priority, self.deadline_s
        ) as self.slot:
            await self.leave.wait()


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(5):
        await asyncio.sleep(0)


async def start(*requests: Request) -> None:
    for request in requests:
        request.task = asyncio.create_task(request.run())
        await settle()


async def finish(request: Request, tokens: int = 0) -> None:
    assert request.slot is not None and request.task is not None
    if tokens:
        request.slot.served(tokens)
    request.leave.set()
    await request.task


async def refused(request: Request) -> OverloadedError:
    assert request.task is not None
    with pytest.raises(OverloadedError) as caught:
        await request.task
    return caught.value


async def serve_all(requests: list[Request], tokens: Callable[[Request], int], grants: int) -> dict[str, int]:
    """Serve `grants` requests, in the order in which they got their slots; tokens served, by model."""
    served: dict[str, int] = {}
    running: list[Request] = []
    for _ in range(grants):
        running += [request for request in requests if request.slot and request not in running]
        requests = [request for request in requests if request not in running]
        request = running.pop(0)
        await finish(request, tokens(request))
        served[request.model] = served.get(request.model, 0) + request.prompt + tokens(request)
        await settle()
    return served


async def stop(*requests: Request) -> None:
    tasks = [request.task for request in requests if request.task]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def jain(values: list[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


async def test_slots_are_granted_up_to_what_the_pool_runs() -> None:
    admission = Bench().admission(a={})
    requests = [Request(admission, "a") for _ in range(6)]
    await start(*requests)
    assert [request.slot is not None for request in requests] == [True] * 4 + [False] * 2
    assert (admission.counts("a").running, admission.counts("a").queued) == (4, 2)
    await finish(requests[0])
    await settle()
    assert requests[4].slot is not None and requests[5].slot is None
    await stop(*requests)
    assert admission.counts("a") == ModelCounts(admitted=5, cancelled=1, prompt_tokens=50)


async def test_a_noisy_neighbour_takes_its_share_and_no_more() -> None:
    admission = Bench().admission(noisy={}, a={}, b={}, c={})
    requests = [Request(admission, "noisy", 50, 300) for _ in range(100)]
    requests += [Request(admission, model, 50, 300) for model in "abc" for _ in range(10)]
    await start(*requests)
    await serve_all(requests[:4], lambda request: 100, grants=4)  # which began before the others came
    served = await serve_all(
        requests[4:], lambda request: 300 if request.model == "noisy" else 100, grants=24
    )
    assert all(admission.counts(model).queued for model in "abc")
    assert jain([*served.values()]) >= 0.95, served
    await stop(*requests)


async def test_an_answer_is_charged_as_it_came_and_not_as_it_was_expected() -> None:
    admission = Bench(decode=PoolFigures(1, 1, slots=1)).admission(short={}, long={})
    for model, tokens in (("short", 1), ("long", 300)):  # 128 are expected of both
        async with admission.slot(model, 100, 0) as slot:
            slot.served(tokens)
    holder, long, short = (Request(admission, model, 10, 10) for model in ("short", "long", "short"))
    await start(holder, long, short)
    await finish(holder)
    await settle()
    assert short.slot is not None and long.slot is None
    await stop(long, short)


async def test_weights_divide_a_saturated_pool() -> None:
    admission = Bench().admission(light={"weight": 1}, heavy={"weight": 3})
    requests = [Request(admission, model) for _ in range(200) for model in ("light", "heavy")]
    await start(*requests)
    served = await serve_all(requests, lambda request: 100, grants=200)
    assert served["heavy"] / served["light"] == pytest.approx(3, rel=0.07)
    await stop(*requests)


async def test_a_model_alone_uses_every_slot_and_hands_the_next_ones_over() -> None:
    admission = Bench().admission(noisy={}, quiet={})
    noisy = [Request(admission, "noisy") for _ in range(10)]
    await start(*noisy)
    assert admission.counts("noisy").running == 4
    for request in noisy[:4]:
        assert request.slot
        request.slot.served(100)
    quiet = [Request(admission, "quiet") for _ in range(2)]
    await start(*quiet)
    for request in noisy[:2]:
        await finish(request)
    await settle()
    assert all(request.slot for request in quiet)
    await stop(*noisy, *quiet)


async def test_priorities_go_first_and_the_others_still_come() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=1))
    admission = bench.admission(a={"queue_s": 40}, b={"queue_s": 40})
    first = Request(admission, "a")
    low = Request(admission, "b", priority=2)
    urgent = [Request(admission, "a", priority=-1) for _ in range(6)]
    await start(first, low, *urgent)
    bench.now += 10.0  # a quarter of queue_s: `low` is old
    for request in [first, *urgent[:3]]:
        assert low.slot is None
        await finish(request)
        await settle()
    assert low.slot is not None
    await stop(low, *urgent)


async def test_a_concurrency_limit_leaves_the_slots_to_others() -> None:
    admission = Bench().admission(limited={"concurrency": 1}, b={})
    requests = [Request(admission, model) for model in ("limited", "limited", "b")]
    await start(*requests)
    assert [request.slot is not None for request in requests] == [True, False, True]
    await finish(requests[0])
    await settle()
    assert requests[1].slot is not None
    await stop(*requests)


async def test_a_request_waits_for_kv() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=4, free_kv_tokens=1000))
    admission = bench.admission(a={"queue_s": 40}, b={"queue_s": 40})
    first, large = Request(admission, "b", 800, 100), Request(admission, "a", 500, 100)
    small, other = Request(admission, "b", 40, 10), Request(admission, "b", 10, 10)
    await start(first, large, small)
    assert first.slot and small.slot and large.slot is None  # the small one passes
    bench.now += 10.0
    await start(other)
    assert other.slot is None  # the large one reserves: it has waited for a quarter of queue_s
    await finish(first)
    await settle()
    assert large.slot and other.slot
    await stop(large, small, other)


@pytest.mark.parametrize(("own", "waits"), [(None, 30.0), (5.0, 5.0), (100.0, 30.0)])
async def test_a_request_is_refused_at_its_deadline(own: float | None, waits: float) -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=1))
    admission = bench.admission(a={"queue_s": 30})
    holder, request = Request(admission, "a"), Request(admission, "a", deadline_s=own)
    await start(holder, request)
    bench.now += waits - 0.1
    admission.pump()
    await settle()
    assert request.task and not request.task.done()
    bench.now += 0.1
    admission.pump()
    error = await refused(request)
    assert f"within {waits:g} s" in error.message and "`shared`" in error.message and "`a`" in error.message
    assert admission.counts("a").refused[Reason.DEADLINE] == 1
    assert admission.counts("a").queued == 0
    await stop(holder)


async def test_cancelling_a_queued_request_leaves_no_trace() -> None:
    admission = Bench(decode=PoolFigures(1, 1, slots=1)).admission(a={})
    requests = [Request(admission, "a") for _ in range(3)]
    await start(*requests)
    await stop(requests[1])
    assert admission.counts("a").queued == 1
    await finish(requests[0])
    await settle()
    assert requests[2].slot is not None
    await stop(requests[2])


async def test_cancelling_in_the_moment_of_the_refusal_leaves_no_trace() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=1))
    admission = bench.admission(a={"queue_s": 5})
    request = Request(admission, "a")
    async with admission.slot("a", 10, 10):
        await start(request)
        bench.now += 5.0
        admission.pump()
        await stop(request)
    assert (admission.counts("a").running, admission.counts("a").queued) == (0, 0)


async def test_cancelling_in_the_moment_of_the_grant_gives_the_slot_on() -> None:
    admission = Bench(decode=PoolFigures(1, 1, slots=1)).admission(a={})
    requests = [Request(admission, "a") for _ in range(2)]
    async with admission.slot("a", 10, 10):
        await start(*requests)
    # The grant is made, and its task has not run.
    assert admission.counts("a").admitted == 2 and requests[0].slot is None
    await stop(requests[0])
    await settle()
    assert requests[0].slot is None and requests[1].slot is not None
    await stop(requests[1])
    assert (admission.counts("a").running, admission.counts("a").queued) == (0, 0)


async def test_a_request_that_is_being_cancelled_gets_no_slot() -> None:
    admission = Bench(decode=PoolFigures(1, 1, slots=1)).admission(a={})
    requests = [Request(admission, "a") for _ in range(2)]
    async with admission.slot("a", 10, 10):
        await start(*requests)
        assert requests[0].task
        requests[0].task.cancel()  # its task has not had the time to leave when the slot is free
    await settle()
    assert requests[0].slot is None and requests[1].slot is not None
    assert (admission.counts("a").running, admission.counts("a").admitted) == (1, 2)
    await stop(requests[1])


async def test_a_reservation_that_is_cancelled_lets_the_others_go_on() -> None:
    bench = Bench(decode=PoolFigures(1, 1, slots=4, free_kv_tokens=1000))
    admission = bench.admission(a={"queue_s": 40}, b={"queue_s": 40})
    first, large = Request(admission, "b", 800, 100), Request(admission, "a", 500, 100)
    await start(first, large)
    bench.now += 10.0
    small = Request(admission, "b", 10, 10)
    await start(small)
    assert small.slot is None
    await stop(large)
    await settle()
    assert small.slot is not None
    await stop(first, small)
