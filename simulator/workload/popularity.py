"""Which model a request goes to: by popularity, or by turns within what shares a prefix."""

import itertools
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal

Assign = Literal["zipf", "turns"]

Chooser = Callable[[int], str]
"""From the number of a request's prefix group (its conversation) to the model that it goes to."""


def zipf_weights(count: int, exponent: float) -> tuple[float, ...]:
    """Shares of `count` models, the most popular first: `1 / rank^exponent`, summing to 1.

    Exponent 0 is even. SUN (arXiv 2603.02599) calls its popularity Zipf-skewed; its exponents are not known.
    """
    raw = [rank**-exponent for rank in range(1, count + 1)]
    total = sum(raw)
    return tuple(weight / total for weight in raw)


def by_zipf(models: Sequence[str], exponent: float, rng: random.Random) -> Chooser:
    """SUN's way: every request by itself, whatever its group; the first model is the most popular."""
    sums = list(itertools.accumulate(zipf_weights(len(models), exponent)))
    sums[-1] = 1.0  # rounding must not leave a gap above the last one

    return lambda group: models[bisect_right(sums, rng.random())]


def by_turns(models: Sequence[str]) -> Chooser:
    """PrefillShare's way: the requests of one group go to the models one after the other.

    Each group that is new begins one model later than the group before it: groups of a single request, the
    most common ones in traces, would otherwise all go to the first model.
    """
    following: dict[int, int] = {}

    def choose(group: int) -> str:
        turn = following.get(group)
        if turn is None:
            turn = len(following)
        following[group] = turn + 1
        return models[turn % len(models)]

    # `following` holds one turn per group, so its length is the number of groups seen.
    return choose


def chooser(assign: Assign, models: Sequence[str], exponent: float, rng: random.Random) -> Chooser:
    """`by_zipf` or `by_turns`, by name. `exponent` and `rng` are for the first alone."""
    return by_zipf(models, exponent, rng) if assign == "zipf" else by_turns(models)


def describe_assign(assign: Assign, models: Sequence[str], exponent: float) -> str:
    """For `Workload.description`: "4 models by Zipf 1"."""
    noun = "model" if len(models) == 1 else "models"
    return f"{len(models)} {noun} {f'by Zipf {exponent:g}' if assign == 'zipf' else 'by turns'}"
