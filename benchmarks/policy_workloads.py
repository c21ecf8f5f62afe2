"""What arrives when the policies are compared: drawn from a seed, in virtual seconds.

Every model serves a few applications, each with a long prompt prefix of its own, and every request is a turn
of a conversation: application prefix, what was said before, something new. So there is a prefix to find
again, on one replica or on all of them, and conversations for a policy that keeps one together.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, count

MODELS = tuple(f"m{number}" for number in range(8))
APPLICATIONS = 4
"""Per model."""

PREFIX_TOKENS = 1024
SAID_TOKENS = (32, 384)
"""New tokens of a turn, from and to, evenly spread."""

HISTORY_TOKENS = 2048
"""A conversation that is longer starts anew."""

CONTINUES = 0.5
"""The part of requests that continue a conversation."""

OUTPUT_TOKENS = (16, 32, 64, 128, 256)
"""Equally likely: the mean is near 100, and a router that counts requests is wrong about their weight."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request; `session` is its conversation."""

    at_s: float
    model: str
    session: str
    token_ids: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """`times` yields endless arrival times; `popularity` are the models' weights.

    The first replica of each pool is `slow` times slower than the others.
    """

    name: str
    summary: str
    requests: int
    times: Callable[[random.Random], Iterator[float]]
    popularity: tuple[float, ...]
    slow: float = 1.0

    def arrivals(self, seed: int) -> list[Arrival]:
        """The same for every policy: drawn before anything runs."""
        draw = random.Random(f"{self.name} {seed}")
        users = _Users(draw)
        return [
            users.turn(at_s, draw.choices(MODELS, self.popularity)[0])
            for at_s, _ in zip(self.times(draw), range(self.requests), strict=False)
        ]


@dataclass
class _Users:
    """Who writes to the models, and what they have said so far."""

    draw: random.Random
    numbers: Iterator[int] = field(default_factory=count)
    open: dict[str, list[tuple[str, tuple[int, ...]]]] = field(default_factory=dict)

    def turn(self, at_s: float, model: str) -> Arrival:
        conversations = self.open.setdefault(model, [])
        if conversations and self.draw.random() < CONTINUES:
            session, before = conversations.pop(self.draw.randrange(len(conversations)))
        else:
            application = self.draw.randrange(APPLICATIONS)
            session = f"{model} {next(self.numbers)}"
            before = _prefix(model, application)
        token_ids = (*before, *_words(self.draw, self.draw.randint(*SAID_TOKENS)))
        if len(token_ids) < PREFIX_TOKENS + HISTORY_TOKENS:
            conversations.append((session, token_ids))
        return Arrival(at_s, model, session, token_ids, self.draw.choice(OUTPUT_TOKENS))


@cache
def _prefix(model: str, application: int) -> tuple[int, ...]:
    return tuple(_words(random.Random(f"{model} {application}"), PREFIX_TOKENS))


def _words(draw: random.Random, number: int) -> Iterable[int]:
    return draw.choices(range(1000, 30_000), k=number)


def poisson(rate_per_s: float) -> Callable[[random.Random], Iterator[float]]:
    """Arrivals that know nothing of each other."""
    return lambda draw: accumulate(draw.expovariate(rate_per_s) for _ in count())


def bursts(
    calm_per_s: float, burst_per_s: float, period_s: float, burst_s: float
) -> Callable[[random.Random], Iterator[float]]:
    """Every `period_s` ends with a burst; within a phase, as `poisson`."""

    def times(draw: random.Random) -> Iterator[float]:
        now_s = 0.0
        while True:
            # Thinned from the higher rate, which is right however short a phase is.
            now_s += draw.expovariate(burst_per_s)
            if now_s % period_s >= period_s - burst_s or draw.random() < calm_per_s / burst_per_s:
                yield now_s

    return times


EVEN = (1.0,) * len(MODELS)
ZIPF = tuple(1.0 / rank for rank in range(1, len(MODELS) + 1))
NOISY = (10.0, *EVEN[1:])

WORKLOADS = (
    Workload("zipf", "Zipf-skewed models", 600, poisson(30.0), ZIPF),
    Workload("bursts", "a burst of 1 s every 5 s", 600, bursts(15.0, 90.0, 5.0, 1.0), ZIPF),
    Workload("slow", "one slow replica per pool (3 times)", 600, poisson(20.0), ZIPF, slow=3.0),
    Workload(
        "noisy", "one model asks ten times as much as each other, beyond capacity", 900, poisson(60.0), NOISY
    ),
)
