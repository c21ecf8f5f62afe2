"""A call that no replica can take ends; one that a replica has taken, or may still take, goes on."""

import asyncio
from dataclasses import dataclass

import pytest

from deployments.pools import LOOK_S, _must_be_sent
from heliostat.errors import PoolUnavailableError
from router.telemetry import TelemetryBoard


@dataclass
class FakePool:
    """Has replicas for that many looks."""

    looks: int
    label: str = "pool decode.base"
    cold_start_s: float = 0.0

    def answers(self) -> bool:
        self.looks -= 1
        return self.looks >= 0


async def test_a_call_to_a_pool_without_replicas_ends() -> None:
    board = TelemetryBoard()
    with pytest.raises(PoolUnavailableError, match=r"pool decode\.base has no replica"):
        async with _must_be_sent(board, "leg", FakePool(looks=1)):
            await asyncio.Event().wait()


async def test_a_call_that_was_taken_goes_on_although_the_pool_is_gone() -> None:
    board, pool = TelemetryBoard(), FakePool(looks=0)
    board.sent("call", "leg", "replica", 10)
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(2 * LOOK_S, done.set)
    async with _must_be_sent(board, "leg", pool):
        await done.wait()
    assert pool.looks == 0, "nobody had to ask"
    assert not board.was_sent("leg")


async def test_a_call_waits_as_long_as_there_are_replicas() -> None:
    board, pool, done = TelemetryBoard(), FakePool(looks=100), asyncio.Event()
    asyncio.get_running_loop().call_later(3 * LOOK_S, done.set)
    async with _must_be_sent(board, "leg", pool):
        await done.wait()
    assert pool.looks < 100


async def test_a_cancelled_call_is_cancelled() -> None:
    async def call() -> None:
        async with _must_be_sent(TelemetryBoard(), "leg", FakePool(looks=100)):
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
