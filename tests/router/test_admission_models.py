"""Models that come and go: nobody who runs is disturbed, nobody waits for what is gone."""

import asyncio
from dataclasses import dataclass, field

import pytest

from heliostat.errors import UnknownModelError
from heliostat.spec import Limits, Model, Spec
from heliostat.wire import Role
from router.admission import Admission, PoolFigures, Slot

SPEC = Spec.model_validate(
    {
        "family": {"base": "org/base"},
        "prefill": {"home": {"weights": "org/base"}},
        "decode": {"one": {"weights": "org/base"}, "other": {"weights": "org/base"}},
        "models": {"a": {"prefill": "home", "decode": "one"}},
    }
)
ONE, OTHER = Model(prefill="home", decode="one"), Model(prefill="home", decode="other")


@dataclass
class Pools:
    """Each decode pool runs `slots` requests."""

    running: int = 2

    def slots(self, role: Role, pool: str) -> PoolFigures:
        return PoolFigures(1, 1, slots=self.running) if role is Role.DECODE else PoolFigures()


@dataclass(eq=False)
class Request:
    admission: Admission
    model: str
    slot: Slot | None = None
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with self.admission.slot(self.model, 10, 10) as self.slot:
            await self.leave.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def begun(admission: Admission, *models: str) -> list[tuple[Request, "asyncio.Task[None]"]]:
    requests = [Request(admission, model) for model in models]
    started = [(request, asyncio.create_task(request.run())) for request in requests]
    await settle()
    return started


def door(slots: int = 2) -> Admission:
    return Admission(SPEC, Pools(slots), lambda: 100.0)


async def finish(*started: tuple[Request, "asyncio.Task[None]"]) -> None:
    for request, task in started:
        request.leave.set()
        await task


async def test_an_added_model_begins_and_queues_as_the_others() -> None:
    admission = door()
    with pytest.raises(UnknownModelError):
        admission.check("b")
    admission.add("b", ONE)
    admission.check("b")
    first, second, third = await begun(admission, "a", "b", "b")
    assert second[0].slot is not None and third[0].slot is None
    assert admission.counts("b").queued == 1
    await finish(first, second, third)
    assert admission.counts("b").admitted == 2


async def test_an_added_model_earns_no_credit_for_the_time_before() -> None:
    """One slot; `a` was served much when `b` comes: from then on they take turns."""
    admission = door(slots=1)
    for _ in range(5):
        (only,) = await begun(admission, "a")
        assert only[0].slot is not None
        only[0].slot.served(10)
        await finish(only)
    admission.add("b", ONE)
    waiting = await begun(admission, *"abababab")
    order = []
    for _ in range(len(waiting)):
        (now,) = [each for each in waiting if each[0].slot is not None]
        order.append(now[0].model)
        waiting.remove(now)
        now[0].slot.served(10)
        await finish(now)
        await settle()
    assert sorted(order[:4]) == ["a", "a", "b", "b"]


async def test_who_waits_for_a_removed_model_gets_a_404_and_who_runs_finishes() -> None:
    admission = door(slots=1)
    running, waiting, other = await begun(admission, "a", "a", "a")
    admission.remove("a")
    for _, task in (waiting, other):
        with pytest.raises(UnknownModelError):
            await task
    assert running[0].slot is not None
    running[0].slot.served(7)
    assert (admission.counts("a").running, admission.counts("a").queued) == (1, 0)
    assert admission.expected_tokens("a", 5) == 5, "a second attempt of a running request asks for that"
    await finish(running)
    assert (admission.counts("a").running, admission.counts("a").output_tokens) == (0, 7)
    with pytest.raises(UnknownModelError):
        admission.check("a")
    with pytest.raises(UnknownModelError):
        async with admission.slot("a", 10, 10):
            pass


async def test_a_slot_goes_to_the_others_when_what_they_waited_for_is_removed() -> None:
    """A large request of `a` has reserved the pool when `a` goes."""
    now = 100.0
    figures = PoolFigures(1, 1, slots=4, free_kv_tokens=1000)

    @dataclass
    class Narrow:
        def slots(self, role: Role, pool: str) -> PoolFigures:
            return figures if role is Role.DECODE else PoolFigures()

    admission = Admission(SPEC, Narrow(), lambda: now)
    admission.add("b", ONE)

    async def ask(model: str, prompt: int, max_tokens: int = 100) -> None:
        async with admission.slot(model, prompt, max_tokens):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(ask("b", 800))]
    await settle()
    tasks.append(asyncio.create_task(ask("a", 500)))
    await settle()
    now += 10.0  # beyond the patience of a quarter of queue_s
    tasks.append(asyncio.create_task(ask("b", 10, 10)))
    await settle()
    assert admission.counts("b").running == 1
    admission.remove("a")
    await settle()
    assert admission.counts("b").running == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_name_that_comes_back_on_another_pool_leaves_the_old_pool_in_order() -> None:
    admission = door(slots=1)
    (old,) = await begun(admission, "a")
    admission.remove("a")
    admission.add("a", OTHER)
    (new,) = await begun(admission, "a")
    assert new[0].slot is not None and new[0].slot.pool == "other"
    assert old[0].slot is not None
    old[0].slot.served(3)
    await finish(old, new)
    assert admission.counts("a").output_tokens == 3
    assert (admission.counts("a").running, admission.counts("a").admitted) == (0, 2)
    admission.add("b", ONE)
    (free,) = await begun(admission, "b")
    assert free[0].slot is not None, "the old pool got its slot back"
    await finish(free)


async def test_limits_of_a_name_that_comes_back_are_the_new_ones() -> None:
    admission = door()
    admission.remove("a")
    admission.add("a", ONE.model_copy(update={"limits": Limits(concurrency=1)}))
    first, second = await begun(admission, "a", "a")
    assert first[0].slot is not None and second[0].slot is None
    await finish(first, second)
