"""A load generator: completions streamed over HTTP, in a closed or an open loop, with a stamp per token.

Times are `time.perf_counter` seconds of this process. Not covered: chat, retries; the first request that
fails ends the run, because a run with failures measures something else.
"""

import asyncio
import random
import string
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from heliostat.errors import HeliostatError

TIMEOUT_S = 120.0
"""For one whole request; a benchmark's answers are short, so a longer one hangs."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One greedy completion of exactly `max_tokens` tokens."""

    model: str
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer: when its request was due, when its first and last tokens came, and the tokens."""

    sent_s: float
    first_s: float
    last_s: float
    token_ids: tuple[int, ...]

    @property
    def ttft_ms(self) -> float:
        """Time to first token: from the moment the request was due."""
        return (self.first_s - self.sent_s) * 1000

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first, or None for a single token."""
        if len(self.token_ids) < 2:
            return None
        return (self.last_s - self.first_s) * 1000 / (len(self.token_ids) - 1)


class _Choice(BaseModel):
    token_ids: tuple[int, ...] | None = None


class _Chunk(BaseModel):
    choices: tuple[_Choice, ...]


class CompletionClient:
    """Streams completions of the server at `url`; an async context manager."""

    def __init__(self, url: str) -> None:
        self._session = aiohttp.ClientSession(
            url,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            # A kept connection may be closed by the server just as we send on it; ours must not fail so.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def complete(self, request: LoadRequest, due_s: float | None = None) -> Answer:
        """Send one request and read its stream to the end; TTFT counts from `due_s`, by default from now.

        Raises HeliostatError when the server refuses, breaks off, or answers with another number of tokens.
        """
        sent_s = time.perf_counter() if due_s is None else due_s
        try:
            async with self._session.post("/v1/completions", json=_body(request)) as response:
                if response.status != 200:
                    text = await response.text()
                    raise HeliostatError(f"model {request.model}: HTTP {response.status}: {text}")
                answer = await _read(response.content, sent_s)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HeliostatError(f"model {request.model}: {type(error).__name__}: {error}") from error
        if len(answer.token_ids) != request.max_tokens:
            raise HeliostatError(
                f"model {request.model}: {len(answer.token_ids)} tokens came, not {request.max_tokens}"
            )
        return answer


def _body(request: LoadRequest) -> dict[str, str | int | float | bool]:
    return {
        "model": request.model,
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "return_token_ids": True,  # a chunk may hold several tokens, so chunks cannot be counted instead
    }


async def _read(stream: aiohttp.StreamReader, sent_s: float) -> Answer:
    token_ids: list[int] = []
    first_s = last_s = 0.0
    async for line in stream:
        now = time.perf_counter()
        event = line.strip().removeprefix(b"data: ")
        if event == b"[DONE]":
            return Answer(sent_s, first_s, last_s, tuple(token_ids))
        new = _tokens(event) if event else ()
        if new:
            first_s, last_s = first_s or now, now
            token_ids += new
    raise HeliostatError("the server broke off the stream before [DONE]")


def _tokens(event: bytes) -> tuple[int, ...]:
    try:
        chunk = _Chunk.model_validate_json(event)
    except ValidationError as error:
        raise HeliostatError(f"not a completion chunk: {event.decode(errors='replace')}") from error
    return tuple(token for choice in chunk.choices for token in choice.token_ids or ())


Drive = Callable[[CompletionClient, Sequence[LoadRequest]], Coroutine[None, None, list[Answer]]]
"""How requests are offered: `closed_loop` or `open_loop` with its setting filled in."""


async def closed_loop(
    client: CompletionClient, requests: Sequence[LoadRequest], *, streams: int
) -> list[Answer]:
    """`streams` requests at a time, each followed at once by the next; answers in no fixed order."""
    waiting = iter(requests)
    answers = await _together(_stream(client, waiting) for _ in range(streams))
    return [answer for stream in answers for answer in stream]


async def _stream(client: CompletionClient, waiting: Iterator[LoadRequest]) -> list[Answer]:
    return [await client.complete(request) for request in waiting]


async def open_loop(
    client: CompletionClient, requests: Sequence[LoadRequest], *, rate_per_s: float, seed: int
) -> list[Answer]:
    """Poisson arrivals at `rate_per_s`, whether or not earlier requests are done; answers in order."""
    rng = random.Random(seed)
    due_s = time.perf_counter()
    arrivals: list[Coroutine[None, None, Answer]] = []
    for request in requests:
        due_s += rng.expovariate(rate_per_s)
        arrivals.append(_arrive(client, request, due_s))
    return await _together(arrivals)


async def _arrive(client: CompletionClient, request: LoadRequest, due_s: float) -> Answer:
    await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
    return await client.complete(request, due_s)


async def _together(work: Iterable[Coroutine[None, None, Result]]) -> list[Result]:
    """All results in order; the first failure cancels the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


def run_load(url: str, requests: Sequence[LoadRequest], drive: Drive) -> list[Answer]:
    """Offer `requests` to the server at `url` and wait for all answers. Raises HeliostatError."""

    async def run() -> list[Answer]:
        async with CompletionClient(url) as client:
            return await drive(client, requests)

    return asyncio.run(run())


def zipf_ranks(rng: random.Random, *, items: int, exponent: float, draws: int) -> list[int]:
    """`draws` ranks from 0 to items - 1; the probability of rank r is proportional to (r + 1)^-exponent."""
    weights = [(rank + 1) ** -exponent for rank in range(items)]
    return rng.choices(range(items), weights, k=draws)


def random_letters(rng: random.Random, count: int) -> str:
    """`count` lower-case letters; the quickstart's tokenizer makes one token of each."""
    return "".join(rng.choices(string.ascii_lowercase, k=count))
