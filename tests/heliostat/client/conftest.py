"""Both clients behind one face, and a time that passes when somebody sleeps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from heliostat import Answer, AsyncClient, AsyncStream, Client, Piece, Stream


@dataclass
class FakeTime:
    """Sleeping takes no time, and is written down."""

    now_s: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)


class Asker:
    """One of the two clients; what blocks runs in a thread, because the server is in this one."""

    def __init__(self, client: AsyncClient | Client) -> None:
        self.client = client

    async def chat(self, *args: object, **options: object) -> Answer:
        return await self.call(self.client.chat, *args, **options)  # type: ignore[arg-type, return-value]

    async def call(self, method: Callable[..., object], *args: object, **options: object) -> object:
        if isinstance(self.client, AsyncClient):
            found = method(*args, **options)
            return await found if isinstance(found, Awaitable) else found
        return await asyncio.to_thread(method, *args, **options)

    async def pieces(self, stream: AsyncStream | Stream, into: list[Piece]) -> Answer:
        """Reads it to its end; `into` has what came before an error."""
        if isinstance(stream, AsyncStream):
            async with stream:
                async for piece in stream:
                    into.append(piece)
            return stream.answer
        return await asyncio.to_thread(self._pieces, stream, into)

    def _pieces(self, stream: Stream, into: list[Piece]) -> Answer:
        with stream:
            into.extend(stream)
        return stream.answer


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture(params=[AsyncClient, Client], ids=["async", "sync"])
async def asker(
    request: pytest.FixtureRequest, server, time: FakeTime
) -> AsyncIterator[Callable[..., Asker]]:
    """Makes a client of the server, whose waits take no time."""
    made: list[AsyncClient | Client] = []

    def make(**settings: object) -> Asker:
        sleep = time.async_sleep if request.param is AsyncClient else time.sleep
        told = {"sleep": sleep, "clock": time.clock, "random": lambda: 0.5, "base_url": server.url}
        made.append(request.param(**(told | settings)))
        return Asker(made[-1])

    yield make
    for client in made:
        if isinstance(client, AsyncClient):
            await client.close()
        else:
            client.close()
