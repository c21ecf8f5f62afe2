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
