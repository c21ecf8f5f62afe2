"""From flags and a server to what will be asked: models, prompts, and how answers are counted."""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

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
from cluster.served import check_models, served_models
from heliostat.client import AsyncClient
from heliostat.errors import InvalidRequestError, OverloadedError, PoolUnavailableError

LONE_SESSION = 4
"""Requests of a session that has one model."""


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a run asks follows from it. There are rows of a file, or words to make prompts of."""

    models: tuple[str, ...]
    asking: Asking
    prompts: Prompts
    words: Words | None
    rows: Sequence[Said]
    zipf: float | None
    seed: int

    def sessions(self, part: str, requests: int | None) -> Iterator[Session]:
        """Whole ones, for so many requests or without end; of another part, such as the warm-up, with other
        prompts. Raises HeliostatError."""
        model_of = models_by(self.models, self.zipf, self.seed)
        if self.words is None:
            return from_dataset(self.rows, model_of)
        found = synthetic(self.prompts, self.words, model_of, self.seed, part)
        # Else as many streams as there are requests would ask one of each session, and share nothing.
        whole = None if requests is None else -(-requests // self.prompts.requests_per_session)
        return islice(found, whole)

    def describe(self) -> str:
        """What is asked, for people."""
        length = f"{'' if self.asking.ignore_eos else 'at most '}{self.asking.output_tokens} tokens out"
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
    asking = Asking(args.api, args.output_tokens, ignore_eos=words is not None and words.counted)
    per_session = args.requests_per_session or (len(models) if len(models) > 1 else LONE_SESSION)
    if not args.shared_prefix_tokens:
        per_session = 1  # nothing holds more of them together
    return Setup(
        models,
        await _accepted(client, asking, models[0]),
        Prompts(args.prompt_tokens, args.shared_prefix_tokens, per_session),
        words,
        rows,
        args.zipf,
        random.SystemRandom().randrange(10**6) if args.seed is None else args.seed,
    )


async def _accepted(client: AsyncClient, asking: Asking, model: str) -> Asking:
    """Without what the server does not know, found with one short request or a few.

    Raises what is wrong with all of them. A server that is busy now is measured all the same.
    """
    for usage, ignore_eos in ((True, asking.ignore_eos), (False, asking.ignore_eos), (True, False)):
        tried = replace(asking, usage=usage, ignore_eos=ignore_eos)
        try:
            await _ask_once(client, tried, model)
            return tried
        except (OverloadedError, PoolUnavailableError):
            return tried
        except InvalidRequestError:
            continue
    plain = replace(asking, usage=False, ignore_eos=False)
    await _ask_once(client, plain, model)
    return plain


async def _ask_once(client: AsyncClient, asking: Asking, model: str) -> None:
    sender = Sender(client, replace(asking, output_tokens=1), lambda record: None)
    async with sender.open(Planned(model, "a")) as stream:
        await stream.read()
