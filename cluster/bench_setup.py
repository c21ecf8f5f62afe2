"""From flags and a server to what will be asked: models, prompts, and how answers are counted."""

import argparse
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from cluster.bench_record import Asking, Sender
from cluster.bench_requests import (
    Planned,
    Prompts,
    Said,
    Session,
    from_dataset,
    models_by,
    read_dataset,
    synthetic,
)
from cluster.bench_tokenize import TokenCounter
from cluster.bench_words import Words, learn_words
from cluster.dialect import Dialect, Droppable, first_taken
from cluster.served import check_models, served_models
from heliostat.client import AsyncClient
from heliostat.errors import OverloadedError, PoolUnavailableError

Part = Literal["warm-up", "run"]
LONE_SESSION = 4
"""Requests of a session that has one model."""


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a run asks follows from it. There are rows of a file, or words to make prompts of. `warmup`
    requests come before it."""

    models: tuple[str, ...]
    asking: Asking
    prompts: Prompts
    words: Words | None
    rows: Sequence[Said]
    zipf: float | None
    seed: int
    warmup: int

    def sessions(self, part: Part, requests: int | None) -> Iterator[Session]:
        """Whole ones, for so many requests or without end. The run asks other prompts than the warm-up; a
        file's go on where the warm-up has ended. Raises HeliostatError."""
        model_of = models_by(self.models, self.zipf, self.seed)
        if self.words is None:
            return from_dataset(self.rows, model_of, self.warmup if part == "run" else 0)
        found = synthetic(self.prompts, self.words, model_of, self.seed, part)
        # Else as many streams as there are requests would ask one of each session, and share nothing.
        return islice(found, None if requests is None else self._sessions_of(requests))

    def streams(self, concurrency: int, requests: int | None) -> int:
        """How many requests of a closed loop are there at a time: at most one of each session."""
        return concurrency if requests is None else min(concurrency, self._sessions_of(requests))

    def stream_warnings(self, concurrency: int, requests: int | None) -> tuple[str, ...]:
        """Where sessions make it fewer than were asked for."""
        each = self.prompts.requests_per_session
        if requests is None or each == 1 or (streams := self.streams(concurrency, requests)) == concurrency:
            return ()
        return (
            f"{streams} requests at a time, not {concurrency}: {requests} are {streams} sessions of {each}, "
            f"a session asks one after the other; --requests {concurrency * each} would do, or --duration",
        )

    def again_warnings(self, asked: int) -> tuple[str, ...]:
        """Where a file had fewer prompts than were asked, warm-up and all."""
        if not self.rows or asked <= len(self.rows):
            return ()
        return (
            f"{asked} prompts were asked of the file's {len(self.rows)}, warm-up and all: "
            "those that were asked more than once may have come from a cache",
        )

    def chance_warnings(self) -> tuple[str, ...]:
        """Where answers are not always the likeliest ones."""
        if self.asking.dialect.temperature:
            return ()
        return (f"{self.models[0]} takes no temperature: its answers are drawn by chance",)

    def _sessions_of(self, requests: int) -> int:
        return -(-requests // self.prompts.requests_per_session)

    def describe(self) -> str:
        """What is asked, for people."""
        length = (
            f"{'' if self.asking.dialect.ignore_eos else 'at most '}{self.asking.output_tokens} tokens out"
        )
        if self.rows:
            return f"{len(self.rows)} prompts of a file, {length}"
        shared = ""
        if self.prompts.shared_tokens:
            each = self.prompts.requests_per_session
            shared = f", of which sessions of {each} requests share {self.prompts.shared_tokens}"
        return f"{self.prompts.tokens} tokens in{shared}, {length}"


async def set_up(args: argparse.Namespace, client: AsyncClient) -> Setup:
    """Asks the server what it serves, how it counts and what it takes. Raises HeliostatError."""
    rows = read_dataset(args.dataset, args.api == "chat") if args.dataset else []
    models = check_models(args.model, await served_models(client, args.url), args.url)
    words = None
    if not rows:
        async with TokenCounter(args.url, models[0], args.api) as counter:
            words = await learn_words(counter.count)
    # Whoever counts as vLLM does goes on after the end as vLLM does; a file's prompts end where they end.
    dialect = Dialect(ignore_eos=words is not None and words.counted)
    asking = Asking(args.api, args.output_tokens, dialect, args.extra_body or {})
    per_session = args.requests_per_session or (len(models) if len(models) > 1 else LONE_SESSION)
    if rows or not args.shared_prefix_tokens:
        per_session = 1  # nothing holds more of them together
    return Setup(
        models,
        await _accepted(client, asking, models[0]),
        Prompts(args.prompt_tokens, args.shared_prefix_tokens, per_session),
        words,
        rows,
        args.zipf,
        random.SystemRandom().randrange(10**6) if args.seed is None else args.seed,
        args.warmup,
    )


async def _accepted(client: AsyncClient, asking: Asking, model: str) -> Asking:
    """Without what the server does not know, found with one short request or a few.

    Raises what is wrong with all of them. A server that is busy now is measured all the same.
    """

    async def ask(dialect: Dialect) -> None:
        # A reasoning model thinks first: with a single token it may say that it could not finish.
        tokens = 1 if dialect.max_tokens else asking.output_tokens
        with suppress(OverloadedError, PoolUnavailableError):
            await _ask_once(client, replace(asking, output_tokens=tokens, dialect=dialect), model)

    chats_only: tuple[Droppable, ...] = ("max_tokens",) if asking.api == "chat" else ()
    rungs = asking.dialect.rungs("usage", "ignore_eos", *chats_only, "temperature")
    dialect, _ = await first_taken(rungs, ask)
    return replace(asking, dialect=dialect)


async def _ask_once(client: AsyncClient, asking: Asking, model: str) -> None:
    sender = Sender(client, asking, lambda record: None)
    async with sender.open(Planned(model, "a")) as stream:
        await stream.read()
