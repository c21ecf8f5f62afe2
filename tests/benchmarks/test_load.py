"""Facts about the load generator, against a small HTTP server in this process that streams like vLLM."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from benchmarks.load import (
    Answer,
    CompletionClient,
    LoadRequest,
    closed_loop,
    open_loop,
    random_letters,
    zipf_ranks,
)
from heliostat.errors import HeliostatError

REQUEST = LoadRequest("base", "abc", max_tokens=3)


def chunk(*token_ids: int) -> str:
    choice = {"index": 0, "text": "x", "token_ids": token_ids, "prompt_token_ids": None}
    return f"data: {json.dumps({'object': 'text_completion', 'choices': [choice]})}\n\n"


USAGE = 'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\n'
DONE = "data: [DONE]\n\n"


@dataclass
class StreamingServer:
    """Answers every POST with `events` after `wait_for` requests are in; remembers bodies and the crowd."""

    events: tuple[str, ...]
    status: str = "200 OK"
    wait_for: int = 1
    bodies: list[dict[str, str | int | float | bool]] = field(default_factory=list)
    inside: int = 0
    most_inside: int = 0
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[CompletionClient]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, CompletionClient(f"http://127.0.0.1:{port}") as client:
            yield client

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        self.bodies.append(json.loads(await reader.readexactly(length)))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        if len(self.bodies) >= self.wait_for:
            self.enough.set()
        await self.enough.wait()
        self.inside -= 1  # before the answer: the client's next request must not find us inside
        writer.write(f"HTTP/1.1 {self.status}\r\nConnection: close\r\n\r\n".encode())
        for event in self.events:
            writer.write(event.encode())
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def test_an_answer_holds_all_tokens_of_all_chunks() -> None:
    server = StreamingServer((chunk(7), chunk(8, 9), USAGE, DONE))
    async with server.run() as client:
        answer = await client.complete(REQUEST)
    assert answer.token_ids == (7, 8, 9)
    assert answer.sent_s < answer.first_s <= answer.last_s


async def test_a_request_asks_for_a_greedy_stream_of_fixed_length() -> None:
    server = StreamingServer((chunk(1, 2, 3), DONE))
    async with server.run() as client:
        await client.complete(REQUEST)
    assert server.bodies == [
        {
            "model": "base",
            "prompt": "abc",
            "max_tokens": 3,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
    ]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ((chunk(1), DONE), "1 tokens came, not 3"),
        ((chunk(1, 2, 3),), r"broke off the stream before \[DONE\]"),
        ((chunk(1), 'data: {"error": {"message": "lost"}}\n\n'), "not a completion chunk: .*lost"),
    ],
)
async def test_a_stream_that_is_not_whole_is_refused(events: tuple[str, ...], message: str) -> None:
    async with StreamingServer(events).run() as client:
        with pytest.raises(HeliostatError, match=message):
            await client.complete(REQUEST)


async def test_a_refused_request_ends_the_run_with_the_servers_words() -> None:
    async with StreamingServer(("no such model",), status="404 Not Found").run() as client:
        with pytest.raises(HeliostatError, match="model base: HTTP 404: no such model"):
            await closed_loop(client, [REQUEST] * 4, streams=2)


async def test_a_server_that_is_not_there_is_an_error_for_people() -> None:
    async with CompletionClient("http://127.0.0.1:1") as client:
        with pytest.raises(HeliostatError, match="model base: ClientConnectorError"):
            await client.complete(REQUEST)


async def test_a_closed_loop_keeps_its_streams_busy_and_no_more() -> None:
    server = StreamingServer((chunk(1, 2, 3), DONE), wait_for=3)
    async with server.run() as client:
        answers = await closed_loop(client, [REQUEST] * 10, streams=3)
    assert (len(answers), len(server.bodies), server.most_inside) == (10, 10, 3)


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    requests = [LoadRequest("base", str(number), max_tokens=3) for number in range(8)]
    server = StreamingServer((chunk(1, 2, 3), DONE), wait_for=8)  # none is answered before all are in
    async with server.run() as client:
        answers = await open_loop(client, requests, rate_per_s=10_000, seed=1)
    assert server.most_inside == 8
    due = [answer.sent_s for answer in answers]
    assert due == sorted(due)


def test_ttft_counts_from_the_request_and_tpot_from_the_first_token() -> None:
    answer = Answer(sent_s=1.0, first_s=1.25, last_s=2.25, token_ids=(1, 2, 3, 4, 5))
    assert (answer.ttft_ms, answer.tpot_ms) == (250.0, 250.0)


def test_one_token_has_no_tpot() -> None:
    assert Answer(1.0, 2.0, 2.0, (5,)).tpot_ms is None


def test_zipf_draws_repeat_with_their_seed() -> None:
    draws = [zipf_ranks(random.Random(seed), items=3, exponent=1.0, draws=50) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("exponent", "shares"),
    [(0.0, (1 / 3, 1 / 3, 1 / 3)), (1.0, (6 / 11, 3 / 11, 2 / 11)), (2.0, (0.735, 0.184, 0.082))],
)
def test_zipf_shares_follow_the_exponent(exponent: float, shares: tuple[float, ...]) -> None:
    drawn = Counter(zipf_ranks(random.Random(0), items=3, exponent=exponent, draws=20_000))
    assert [drawn[rank] / 20_000 for rank in range(3)] == pytest.approx(shares, abs=0.02)


def test_letters_repeat_with_their_seed() -> None:
    text = random_letters(random.Random(3), 200)
    assert text == random_letters(random.Random(3), 200)
    assert len(text) == 200 and text.isalpha() and text.islower()
