"""Sessions of agents: each turn asks the next model with the whole conversation so far, as token ids.

Ids, because a turn's prompt must be the last one's prompt, its answer and something new, to the token: text
that is tokenized again need not be. Answers are not streamed: an agent goes on when its turn is complete.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import aiohttp
from pydantic import BaseModel, ValidationError

from benchmarks.load import TIMEOUT_S
from heliostat.errors import HeliostatError

CONTEXT_TOKENS = 300
NEW_TOKENS = 24
"""Of each later turn's message."""

ANSWER_TOKENS = 24
TURNS = 16
"""So that each of eight models is asked twice, and can find what it left."""

FIRST_ID, LAST_ID = 10, 99
"""Ids of plain characters, of the quickstart's tokenizer."""


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation: the models of its turns, and the ids that each turn adds before it asks."""

    models: tuple[str, ...]
    messages: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One answered turn; `cached_tokens` of its prompt were not computed for it."""

    latency_ms: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All turns of one way in one round."""

    turns: tuple[Turn, ...]
    wall_s: float

    @property
    def turns_per_s(self) -> float:
        return len(self.turns) / self.wall_s

    @property
    def tok_per_s(self) -> float:
        return sum(turn.output_tokens for turn in self.turns) / self.wall_s

    @property
    def hit_ratio(self) -> float:
        """Cached prompt tokens over prompt tokens."""
        return sum(t.cached_tokens for t in self.turns) / sum(t.prompt_tokens for t in self.turns)

    @property
    def prefilled_tokens(self) -> float:
        """Prompt tokens that were computed, per turn."""
        return sum(t.prompt_tokens - t.cached_tokens for t in self.turns) / len(self.turns)


def draw_sessions(models: Sequence[str], count: int, *, seed: str, turns: int = TURNS) -> list[Session]:
    """`count` sessions, each beginning with another model; with one `seed`, every way gets the same ids."""
    rng = random.Random(seed)
    return [
        Session(
            tuple(models[(number + turn) % len(models)] for turn in range(turns)),
            tuple(_ids(rng, NEW_TOKENS if turn else CONTEXT_TOKENS) for turn in range(turns)),
        )
        for number in range(count)
    ]


def run_sessions(url: str, sessions: Sequence[Session], *, at_a_time: int) -> Sample:
    """`converse_all`, for callers without an event loop."""
    return asyncio.run(converse_all(url, sessions, at_a_time=at_a_time))


async def converse_all(url: str, sessions: Sequence[Session], *, at_a_time: int) -> Sample:
    """A closed loop: as soon as a session ends, the next one begins. Raises HeliostatError."""
    waiting = iter(sessions)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    # A kept connection may be closed by the server just as we send on it; ours must not fail so.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=connector) as http:
        start_s = time.perf_counter()
        streams = await asyncio.gather(*(_stream(http, waiting) for _ in range(at_a_time)))
        wall_s = time.perf_counter() - start_s
    return Sample(tuple(turn for turns in streams for turn in turns), wall_s)


async def _stream(http: aiohttp.ClientSession, waiting: Iterator[Session]) -> list[Turn]:
    return [turn for session in waiting for turn in await _converse(http, session)]


async def _converse(http: aiohttp.ClientSession, session: Session) -> list[Turn]:
    turns, conversation = [], list[int]()
    for model, message in zip(session.models, session.messages, strict=True):
        conversation += message
        sent_s = time.perf_counter()
        answer = await _complete(http, model, conversation)
        latency_ms = (time.perf_counter() - sent_s) * 1000
        usage, ids = answer.usage, answer.choices[0].token_ids
        if len(ids) != ANSWER_TOKENS or usage.prompt_tokens != len(conversation):
            raise HeliostatError(
                f"model {model}: {len(ids)} tokens came for a prompt of {usage.prompt_tokens}, "
                f"not {ANSWER_TOKENS} for {len(conversation)}"
            )
        turns.append(
            Turn(latency_ms, usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, len(ids))
        )
        conversation += ids
    return turns


class _Choice(BaseModel):
    token_ids: tuple[int, ...]


class _Details(BaseModel):
    cached_tokens: int


class _Usage(BaseModel):
    prompt_tokens: int
    prompt_tokens_details: _Details


class _Answer(BaseModel):
    choices: tuple[_Choice, ...]
    usage: _Usage


async def _complete(http: aiohttp.ClientSession, model: str, prompt: Sequence[int]) -> _Answer:
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0.0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    try:
        async with http.post("/v1/completions", json=body) as response:
            text = await response.text()
            if response.status != 200:
                raise HeliostatError(f"model {model}: HTTP {response.status}: {text}")
            return _Answer.model_validate_json(text)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise HeliostatError(f"model {model}: {type(error).__name__}: {error}") from error
    except ValidationError as error:
        raise HeliostatError(
            f"model {model}: not a completion with token ids and cached tokens: {error}"
        ) from error


def _ids(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.choices(range(FIRST_ID, LAST_ID + 1), k=count))
