import asyncio
import random

import pytest

from simulator.virtual_time import NothingLeftError, run


def test_sleeping_moves_the_clock_by_exactly_that() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.sleep(3600.0)
        return begin, loop.time()

    assert run(main()) == (0.0, 3600.0)


def test_timers_fire_in_their_order_and_ties_in_the_order_of_setting() -> None:
    async def main() -> list[str]:
        order: list[str] = []

        async def after(delay_s: float, name: str) -> None:
            await asyncio.sleep(delay_s)
            order.append(name)

        await asyncio.gather(after(2.0, "c"), after(1.0, "a"), after(1.0, "b"))
        return order

    assert run(main()) == ["a", "b", "c"]


def test_timeouts_are_virtual_too() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.0):
                await asyncio.sleep(60.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 30.0


def test_a_deadlock_is_said_instead_of_waited_for() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingLeftError):
        run(main())


def test_the_same_program_goes_the_same_way_twice() -> None:
    async def main() -> list[tuple[float, int]]:
        draw = random.Random(7)
        loop = asyncio.get_running_loop()
        lock = asyncio.Lock()
        log: list[tuple[float, int]] = []

        async def worker(number: int) -> None:
            for _ in range(5):
                await asyncio.sleep(draw.random())
                async with lock:
                    await asyncio.sleep(draw.random())
                    log.append((loop.time(), number))

        await asyncio.gather(*(worker(number) for number in range(20)))
        return log

    assert run(main()) == run(main())


def test_a_cancelled_timer_does_not_run_also_when_it_is_cancelled_at_its_own_moment() -> None:
    async def main() -> list[str]:
        loop, heard = asyncio.get_running_loop(), list[str]()
        late = loop.call_at(1.0, heard.append, "late")
        loop.call_at(0.5, late.cancel)
        third = loop.call_at(2.0, heard.append, "third")
        timers = [loop.call_at(1.5, heard.append, "kept"), loop.call_at(1.5, third.cancel)]
        await asyncio.sleep(3.0)
        assert all(not timer.cancelled() for timer in timers)
        return heard

    assert run(main()) == ["kept"]


def test_a_timer_in_the_past_runs_now_and_the_clock_never_goes_back() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(5.0)
        heard: asyncio.Future[float] = loop.create_future()
        loop.call_at(1.0, lambda: heard.set_result(loop.time()))
        return await heard, loop.time()

    assert run(main()) == (5.0, 5.0)


def test_many_timers_of_one_moment_keep_their_order() -> None:
    async def main() -> list[int]:
        loop, heard = asyncio.get_running_loop(), list[int]()
        for number in range(1000):
            loop.call_at(1.0, heard.append, number)
        await asyncio.sleep(2.0)
        return heard

    assert run(main()) == list(range(1000))
