"""Facts about the cheap load generator, against a small HTTP server in this process."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from benchmarks.router_load import Target, closed_loop, open_streams, steady_tok_per_s, summarize
from benchmarks.router_stream import LoadError, Reply, read_answer
from heliostat.errors import HeliostatError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = "[DONE]"


def event(text: str) -> str:
    return json.dumps({"choices": [{"index": 0, "text": text}]})


def usage(tokens: int) -> str:
    return json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}})


def chunked(*events: str) -> bytes:
    """Each event in a chunk of its own, and the last chunk."""
    chunks = [f"data: {each}\n\n".encode() for each in events]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


GOOD = HEAD + chunked(event("a"), event("bc"), usage(3), DONE)


@dataclass
class ScriptedServer:
    """Gives every request `answer`, in pieces of `piece` bytes, after `wait_for` requests are in."""

    answer: bytes = GOOD
    piece: int = 1 << 20
    wait_for: int = 1
    then_close: bool = False
    connections: int = 0
    bodies: list[dict[str, object]] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Target]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            yield Target(f"http://127.0.0.1:{port}", "base", prompt_tokens=5, max_tokens=3)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                self.bodies.append(json.loads(await reader.readexactly(length)))
                if len(self.bodies) >= self.wait_for:
                    self.enough.set()
                await self.enough.wait()
                for begin in range(0, len(self.answer), self.piece):
                    writer.write(self.answer[begin : begin + self.piece])
                    await writer.drain()
                if self.then_close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done
        writer.close()


async def test_tokens_are_those_of_the_usage_and_events_are_counted_beside_them() -> None:
    async with ScriptedServer().run() as target:
        result = await closed_loop(target, streams=2, requests=3)
    assert (result.streams, result.requests, result.tokens, result.events) == (2, 6, 18, 12)
    assert result.failures == {}
    assert result.tok_per_s > 0


async def test_connections_are_kept_and_prompts_are_all_different() -> None:
    server = ScriptedServer()
    async with server.run() as target:
        await closed_loop(target, streams=2, requests=3)
    assert server.connections == 2
    assert len({body["prompt"] for body in server.bodies}) == 6
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
async def test_an_answer_may_come_in_any_pieces(piece: int) -> None:
    async with ScriptedServer(piece=piece).run() as target:
        result = await closed_loop(target, streams=1, requests=2)
    assert (result.tokens, result.failures) == (6, {})


async def test_open_streams_are_all_open_at_once() -> None:
    async with ScriptedServer(wait_for=50).run() as target:
        result = await open_streams(target, streams=50)
    assert (result.most_open, result.requests, result.failures) == (50, 50, {})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull", "HTTP 503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "the answer is no chunked stream"),
        (HEAD + chunked(event("a"), usage(3)), "the stream ended before [DONE]"),
        (HEAD + chunked(event("a"), DONE), "the last chunk holds no usage"),
        (HEAD + chunked(event("a"), usage(2), DONE), "2 tokens came, not 3"),
    ],
)
async def test_failures_are_counted_by_their_reason(answer: bytes, reason: str) -> None:
    async with ScriptedServer(answer).run() as target:
        result = await closed_loop(target, streams=1, requests=2)
    assert result.failures == {reason: 2}
    assert (result.requests, result.tokens, result.ttft_p50_ms) == (2, 0, None)


async def test_a_stream_that_breaks_off_is_a_failure_and_the_next_one_connects_again() -> None:
    server = ScriptedServer(HEAD + b"5\r\ndata:", then_close=True)
    async with server.run() as target:
        result = await closed_loop(target, streams=1, requests=2)
    assert result.failures == {"the stream ended before [DONE]": 2}
    assert server.connections == 2


async def test_an_address_where_nobody_listens_is_an_error() -> None:
    with pytest.raises(HeliostatError, match=r"127\.0\.0\.1:1: connection 0"):
        await closed_loop(Target("http://127.0.0.1:1", "base"), streams=1, requests=1)


def test_usage_may_ride_on_the_last_token() -> None:
    last = json.dumps({"choices": [{"text": "b"}], "usage": {"completion_tokens": 2}})
    assert read_answer(HEAD + chunked(event("a"), last, DONE)) == (2, 2)


def test_an_empty_answer_is_a_closed_connection() -> None:
    with pytest.raises(LoadError, match="closed the connection"):
        read_answer(b"")


def reply(sent_s: float, first_s: float, last_s: float, tokens: int = 10) -> Reply:
    return Reply(sent_s, first_s, last_s, tokens, events=tokens)


def test_times_of_a_reply() -> None:
    one = reply(1.0, 1.5, 2.4)
    assert one.ttft_ms == pytest.approx(500)
    assert one.tpot_ms == pytest.approx(100)
    assert one.latency_ms == pytest.approx(1400)
    assert reply(1.0, 1.5, 1.5, tokens=1).tpot_ms is None


def test_tokens_of_a_window_are_a_share_of_the_reply() -> None:
    one = reply(0.0, 1.0, 2.0)
    assert one.tokens_between(1.5, 9.0) == pytest.approx(5)
    assert one.tokens_between(2.5, 9.0) == 0
    assert reply(0.0, 1.0, 1.0).tokens_between(0.5, 1.5) == 10


def test_the_steady_part_leaves_out_the_ramps() -> None:
    early = [reply(0.0, 0.0, 1.0), reply(1.0, 1.0, 2.0)]
    late = [reply(0.0, 1.0, 2.0), reply(2.0, 2.0, 3.0)]
    assert steady_tok_per_s([early, late]) == pytest.approx(20)  # from 1 s to 2 s


def test_one_request_per_stream_has_no_steady_part() -> None:
    assert steady_tok_per_s([[reply(0.0, 1.0, 2.0)], [reply(0.0, 3.0, 4.0)]]) == pytest.approx(5)


def test_a_load_without_a_good_stream_has_no_times() -> None:
    result = summarize([[]], Counter({"HTTP 503": 4}), wall_s=2.0, cpu_s=1.0, most_open=1)
    assert (result.tok_per_s, result.requests, result.tpot_p50_ms) == (0.0, 4, None)
    assert result.cpu_share == 0.5
