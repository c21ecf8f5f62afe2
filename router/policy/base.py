"""The policy interface. No Ray, no clock, no I/O: the same code runs in production and in a simulator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

RANKS = 8
"""Replicas in a ranking; who asks has given up long before the ninth."""

SET_BACK = 1e9
"""What one step back in the ranking costs: more than any wait: such a replica comes last, not never."""

LOOKED_AT = 16
"""The best of so many drawn ones is among the best 6 % of all."""

GOLDEN = 0.6180339887498949

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The replicas of one pool as this router sees them: one array per figure, in the order of `names`.

    Counts are the last report, corrected by what this router has sent there and not seen end. Tokens are
    prompt tokens to compute (`queued_tokens`), or KV (`context_tokens` of running requests,
    `free_kv_tokens` of `kv_tokens`); `cached_tokens` of the request's prompt need not be computed there;
    `prefill_rate` is tokens/ms; `adapter_ms` is what loading the request's adapter
    costs. Limits, rates and step times are 0 while unknown, headroom then infinite.
    """

    names: tuple[str, ...]
    queued_tokens: Column
    prefill_rate: Column
    cached_tokens: Column
    running: Column
    waiting: Column
    max_running: Column
    context_tokens: Column
    free_kv_tokens: Column
    kv_tokens: Column
    step_base_ms: Column
    step_per_request_ms: Column
    step_per_token_ms: Column
    in_flight: Column
    age_s: Column
    resting: NDArray[np.bool_]
    adapter_ms: Column | float = 0.0


@dataclass(frozen=True, slots=True)
class LegRequest:
    """One leg to place: its prompt and likely output in tokens, and the pool's targets (0: none).

    `draw` in [0, 1) decides between equals, and is all the randomness there is. `session` is what belongs
    together: what the client called it, or what stands for it. `returns`: the client says that the beginning
    of this prompt is asked more than once, of whichever model: it named the session, or said so. Replicas to
    `avoid` come last. `share` is the part of the candidates that is looked at, another part for every draw
    (`outside`). `reuses`: a decode replica computes what it has not cached of the prompt (ICaRus).
    """

    num_tokens: int
    expected_tokens: int = 0
    session: str = ""
    draw: float = 0.0
    avoid: frozenset[str] = frozenset()
    tpot_target_ms: float = 0.0
    share: float = 1.0
    reuses: bool = False
    returns: bool = False


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates by their index, best first, with what each costs; ms where the policy knows times."""

    indices: tuple[int, ...]
    costs: tuple[float, ...]
    explain: Callable[[int], str]

    def reason(self, rank: int = 0) -> str:
        """What the cost of that rank is made of."""
        return self.explain(self.indices[rank])


class Policy(Protocol):
    """Ranks the replicas of one pool for one request."""

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        """The best `RANKS` of them, or all if fewer."""


def rank_by(
    costs: Column,
    candidates: Candidates,
    request: LegRequest,
    explain: Callable[[int], str],
    tolerance: float = 0.0,
    behind: NDArray[np.bool_] | None = None,
    prefer: Column | None = None,
) -> Ranking:
    """Ranks by cost. Of those whose cost is within `tolerance` (a share) of the best, the first is one that
    `prefer` rates highest, or any; among these `request.draw` decides. Those `behind` come after the others,
    resting replicas after those, and replicas to avoid last."""
    if not len(costs):
        return Ranking((), (), explain)
    total = costs
    if behind is not None:
        total = total + behind * (SET_BACK / 4)
    if candidates.resting.any():
        total = total + candidates.resting * SET_BACK
    if request.avoid:
        avoided = np.array([name in request.avoid for name in candidates.names])
        total = total + avoided * (2 * SET_BACK)
    best = total.argmin()
    equals = np.flatnonzero(total <= total[best] + tolerance * abs(costs[best]))
    if prefer is not None:
        equals = equals[prefer[equals] == prefer[equals].max()]
    first = int(equals[int(request.draw * len(equals))])
    if len(total) > RANKS:
        nearest = np.argpartition(total, RANKS)[:RANKS]
        nearest = nearest[total[nearest].argsort(kind="stable")]
    else:
        nearest = total.argsort(kind="stable")
    indices = (first, *(index for index in nearest.tolist() if index != first))[:RANKS]
    return Ranking(indices, tuple(costs[list(indices)].tolist()), explain)


def outside(number: int, request: LegRequest) -> NDArray[np.bool_] | None:
    """Which of so many candidates are not looked at; None: all are.

    Routers that do not talk see the same reports, and what is best by them gets a request of each router
    before the next report. Where each looks at a part of its own, they rarely meet. The part is spread evenly
    over the candidates (multiples of the golden ratio, shifted by the draw), and never less than `LOOKED_AT`.
    """
    share = max(request.share, LOOKED_AT / max(number, 1))
    if share >= 1.0:
        return None
    places: Column = np.modf(np.arange(number) * GOLDEN + request.draw)[0]
    return places >= share


def known_or_median(values: Column, known: NDArray[np.bool_], default: float) -> Column:
    """Unknown values as the median of the known ones; `default` when none is known."""
    if known.all():
        return values
    return np.where(known, values, median(values[known], default))


def median(values: Column, default: float) -> float:
    """`np.median`, which takes five times as long to get to the same."""
    if not len(values):
        return default
    low, high = (len(values) - 1) // 2, len(values) // 2
    parted = np.partition(values, (low, high))
    return float((parted[low] + parted[high]) / 2)
