"""Token frames from replica to router over a real connection: order, merging, loss, and who may speak."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from heliostat.errors import HandoffFailedError
from heliostat.wire import Load, StepTime, TokenDelta, TokenFrame, TokenLogprobs
from router.channel.inbox import Inbox, Stream
from router.channel.merge import merge_frames, num_tokens
from router.channel.messages import (
    Batch,
    ChannelError,
    Hello,
    KvEvents,
    Splitter,
    encode,
    from_frame,
    to_frame,
)
from router.channel.outbox import Link, Outbox

LOAD = Load("decode#1", 3, 1, 0, 0.5, 7, 16, 100, 1000, 9.5, StepTime(1.0, 2.0, 0.1), 0.0, (("math", 3),))


def frame(*token_ids: int, finished: bool = False, index: int = 0) -> TokenFrame:
    delta = TokenDelta(index, token_ids, None, "length" if finished else None, None)
    return TokenFrame((delta,), finished, LOAD, None)


@dataclass
class Ends:
    """A router's inbox and a replica's outbox, connected."""

    inbox: Inbox
    outbox: Outbox
    loads: list[Load] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    async def link(self) -> Link:
        return await self.outbox.link(self.inbox.address)


@asynccontextmanager
async def ends(first_token_s: float = 60.0, idle_s: float = 60.0) -> AsyncGenerator[Ends, None]:
    loads: list[Load] = []
    lost: list[str] = []
    inbox = Inbox(
        "127.0.0.1", loads.append, lost.append, lambda *_: None, first_token_s=first_token_s, idle_s=idle_s
    )
    await inbox.start()
    outbox = Outbox(LOAD.replica, lambda: LOAD)
    try:
        yield Ends(inbox, outbox, loads, lost)
    finally:
        outbox.close()
        inbox.close()


async def until(condition: Callable[[], object]) -> None:
    """Turn the event loop until it holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)


async def read(stream: Stream) -> list[int]:
    tokens: list[int] = []
    while (got := await stream.next()) is not None:
        tokens += got.deltas[0].token_ids
    return tokens


async def test_frames_arrive_in_order_with_the_load_of_their_step() -> None:
    async with ends() as pair:
        stream = pair.inbox.open()
        link = await pair.link()
        link.send(stream.number, frame(1))
        link.send(stream.number, frame(2, 3))
        link.send(stream.number, frame(4, finished=True))
        assert await read(stream) == [1, 2, 3, 4]
        assert stream.replica == LOAD.replica
        assert pair.loads[0] == LOAD


async def test_one_step_of_many_streams_is_one_message() -> None:
    async with ends() as pair:
        streams = [pair.inbox.open() for _ in range(50)]
        link = await pair.link()
        await until(lambda: pair.loads)  # a beat may come first
        before = len(pair.loads)
        for stream in streams:
            link.send(stream.number, frame(stream.number, finished=True))
        assert [await read(stream) for stream in streams] == [[stream.number] for stream in streams]
        assert len(pair.loads) == before + 1


async def test_a_slow_reader_gets_one_long_frame() -> None:
    async with ends() as pair:
        stream, other = pair.inbox.open(), pair.inbox.open()
        link = await pair.link()
        for number in range(100):
            link.send(stream.number, frame(number))
            link.send(other.number, frame(number, finished=number == 99))
            await asyncio.sleep(0)
        assert await read(other) == list(range(100)), "nobody waits for the slow one"
        got = await stream.next()
        assert got is not None
        assert got.deltas[0].token_ids == tuple(range(100))


async def test_while_the_connection_is_full_frames_wait_merged() -> None:
    async with ends() as pair:
        stream = pair.inbox.open()
        link = await pair.link()
        link.pause_writing()
        for number in range(1000):
            link.send(stream.number, frame(number, finished=number == 999))
        await asyncio.sleep(0)
        assert len(link._pending) == 1
        link.resume_writing()
        got = await stream.next()
        assert got is not None
        assert got.deltas[0].token_ids == tuple(range(1000))
        assert await stream.next() is None


async def test_a_missing_token_is_noticed() -> None:
    async with ends() as pair:
        stream = pair.inbox.open()
        stream.put(frame(1), 1)
        stream.put(frame(3), 3)
        assert (await stream.next()) == frame(1), "what came before it still counts"
        with pytest.raises(HandoffFailedError, match="of 3 tokens 2 arrived"):
            await stream.next()


async def test_a_lost_replica_fails_its_streams_and_no_others() -> None:
    async with ends() as pair:
        mine, other = pair.inbox.open(), pair.inbox.open()
        link = await pair.link()
        link.send(mine.number, frame(1))
        assert await mine.next() == frame(1)
        link.close()
        with pytest.raises(HandoffFailedError, match="the replica was lost") as caught:
            await mine.next()
        assert (caught.value.replica, caught.value.lost) == (LOAD.replica, True)
        assert pair.lost == [LOAD.replica]
        other.put(frame(5, finished=True), 1)
        assert await read(other) == [5]


async def test_a_replica_notices_that_its_router_is_gone() -> None:
    async with ends() as pair:
        link = await pair.link()
        gone = asyncio.Event()
        link.on_lost.add(gone.set)
        pair.inbox.close()
        async with asyncio.timeout(10):
            await gone.wait()
        with pytest.raises(HandoffFailedError, match="the router is gone"):
            link.send(1, frame(1))
        with pytest.raises(HandoffFailedError, match="no router listens"):
            await pair.link()


async def test_a_link_is_made_once_and_again_after_it_broke() -> None:
    async with ends() as pair:
        link, same = await asyncio.gather(pair.link(), pair.link())
        assert link is same
        gone = asyncio.Event()
        link.on_lost.add(gone.set)
        link.close()
        async with asyncio.timeout(10):
            await gone.wait()
        assert await pair.link() is not link


async def test_an_idle_link_beats() -> None:
    async with ends() as pair:
        await pair.link()
        await until(lambda: len(pair.loads) >= 2)


async def test_a_stream_without_a_token_in_time_fails() -> None:
    async with ends(first_token_s=5.0, idle_s=1.0) as pair:
        loop = asyncio.get_running_loop()
        stream = pair.inbox.open()
        stream.look(loop.time() + 4.0)
        stream.put(frame(1), 1)
        assert await stream.next() == frame(1)
        stream.look(loop.time() + 2.0)
        with pytest.raises(HandoffFailedError, match="decode#1: no further token came in time"):
            await stream.next()
        silent = pair.inbox.open()
        silent.look(loop.time() + 6.0)
        with pytest.raises(HandoffFailedError, match="no first token came in time"):
            await silent.next()


async def test_what_comes_after_the_end_is_dropped() -> None:
    async with ends() as pair:
        stream = pair.inbox.open()
        stream.put(frame(1, finished=True), 1)
        stream.fail(HandoffFailedError("late"))
        stream.put(frame(2), 2)
        assert await read(stream) == [1]
        pair.inbox.forget(stream)
        assert pair.inbox.num_streams == 0
        pair.inbox.received(Batch(LOAD, (to_frame(stream.number, 1, frame(1)),)))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(encode(Hello("wrong", "decode#1")), id="a wrong secret"),
        pytest.param(encode(Batch(LOAD)), id="no hello"),
        pytest.param(encode(KvEvents((1,))), id="no hello before KV events"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(b"\0\0\0\5hello", id="no msgpack"),
    ],
)
async def test_a_stranger_is_shown_the_door(said: bytes) -> None:
    async with ends() as pair:
        host, _, port = pair.inbox.address.partition("/")[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        assert pair.loads == []


def test_messages_survive_any_cut() -> None:
    frames = (
        to_frame(1, 1, frame(1)),
        to_frame(2, 5, msgspec.structs.replace(frame(9, finished=True), load_ms=0.5)),
    )
    stream = encode(Hello("s", "r")) + encode(Batch(LOAD, frames)) + encode(Batch(LOAD))
    for cut in range(len(stream)):
        splitter = Splitter()
        got = splitter.feed(stream[:cut]) + splitter.feed(stream[cut:])
        assert got == [Hello("s", "r"), Batch(LOAD, frames), Batch(LOAD)]


def test_a_message_of_another_type_is_refused() -> None:
    body = msgspec.msgpack.encode(["Batch", "no load", []])
    with pytest.raises(ChannelError):
        Splitter().feed(len(body).to_bytes(4, "big") + body)


def test_a_frame_travels_whole() -> None:
    logprobs = (TokenLogprobs(((5, -0.5, 1), (6, -1.5, None))), TokenLogprobs(((7, -0.1, 2),)))
    sent = TokenFrame(
        (TokenDelta(0, (5, 7), logprobs, None, None), TokenDelta(1, (8,), None, "stop", 8)),
        False,
        LOAD,
        1.5,
        32,
        16,
    )
    splitter = Splitter()
    (got,) = splitter.feed(encode(Batch(LOAD, (to_frame(4, 3, sent),))))
    assert isinstance(got, Batch)
    assert from_frame(got.frames[0], got.load) == sent


def test_merging_any_way_gives_the_same_frame() -> None:
    logprobs = [(TokenLogprobs(((n, -0.5, 1),)),) for n in range(4)]
    frames = [
        TokenFrame(
            (TokenDelta(n % 2, (n,), logprobs[n], "stop" if n == 3 else None, None),),
            n == 3,
            LOAD,
            None,
            None if n else 32,
            0 if n else 16,
        )
        for n in range(4)
    ]
    left = merge_frames(merge_frames(merge_frames(frames[0], frames[1]), frames[2]), frames[3])
    right = merge_frames(frames[0], merge_frames(frames[1], merge_frames(frames[2], frames[3])))
    assert left == right
    assert (num_tokens(left), left.cached_tokens, left.cross_model_tokens) == (4, 32, 16)
    by_index = {delta.index: delta for delta in left.deltas}
    assert by_index[0].token_ids == (0, 2)
    assert by_index[1].token_ids == (1, 3)
    assert by_index[1].logprobs == logprobs[1] + logprobs[3]
    assert (by_index[1].finish_reason, left.finished) == ("stop", True)
