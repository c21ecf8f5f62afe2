"""What admission keeps for one model and for one decode pool."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from heliostat.spec import Limits, Model
from router.admission.averages import Average
from router.admission.band import Waiting
from router.admission.capacity import SlotLedger
from router.admission.counts import ModelCounts
from router.admission.fair_queue import FairQueue
from router.admission.slot import Slot
from router.admission.token_bucket import TokenBucket

NO_HISTORY_TOKENS = 128
"""The expected output of a model that has not answered yet."""


class PoolState:
    """One decode pool: its slots, and the requests before it."""

    def __init__(self, name: str, routers: int, replicas: int) -> None:
        self.name = name
        self.ledger = SlotLedger(routers, replicas)
        self.queue = FairQueue({})
        self.futures: dict[Waiting, asyncio.Future[Slot]] = {}
        self.held_s = Average()
        """How long a slot is held, in seconds."""


@dataclass(slots=True)
class ModelState:
    """One model: its limits as one of R routers grants them, and what is usual for it."""

    name: str
    prefill: str
    pool: PoolState
    limits: Limits
    concurrency: int | None
    request_rate: TokenBucket | None
    token_rate: TokenBucket | None
    output_tokens: Average = field(default_factory=Average)
    held_s: Average = field(default_factory=Average)
    counts: ModelCounts = field(default_factory=ModelCounts)

    def may_run(self) -> bool:
        """Whether its concurrency limit allows one more request."""
        return self.concurrency is None or self.counts.running < self.concurrency

    def starts_at_once(self, n: int) -> bool:
        """Whether n requests would find slots without waiting; their KV is not known before the slot."""
        free = self.pool.ledger.free_slots()
        if self.concurrency is not None and self.counts.running + n > self.concurrency:
            return False
        return len(self.pool.queue) == 0 and n <= free

    def most_at_once(self) -> float:
        """How many of its requests could ever run at the same time; infinite when nobody knows."""
        most = self.pool.ledger.most
        return most if self.concurrency is None else min(most, self.concurrency)

    def wait_s(self, places: int) -> float | None:
        """Seconds until so many places of its queue have moved up; None without history.

        By Little's law a pool of L slots, each held H seconds, grants L / H per second; of these the model
        gets its share by weight, and no more than its concurrency limit gives back.
        """
        limit = self.pool.ledger.limit
        if limit is None or limit <= 0 or not self.pool.held_s.value:
            return None
        grants_per_s = limit / self.pool.held_s.value * self.pool.queue.share(self.name)
        if self.concurrency is not None and self.held_s.value:
            grants_per_s = min(grants_per_s, self.concurrency / self.held_s.value)
        return places / grants_per_s

    def expected_tokens(self, max_tokens: int, known: int = 0) -> int:
        """Output tokens that are likely to come; at least 1, at most `max_tokens` (0: no limit).

        Whoever asks may know better than the model's history: `known`, unless it is 0.
        """
        usual = self.output_tokens.value
        tokens = known or (NO_HISTORY_TOKENS if usual is None else max(1, round(usual)))
        return min(tokens, max_tokens) if max_tokens > 0 else tokens


def model_state(
    name: str, model: Model, pool: PoolState, clock: Callable[[], float], routers: int, counts: ModelCounts
) -> ModelState:
    """The state of a model at the start, with its limits divided by the number of routers."""
    limits = model.limits
    return ModelState(
        name,
        model.prefill,
        pool,
        limits,
        max(1, limits.concurrency // routers) if limits.concurrency else None,
        TokenBucket(limits.requests_per_s / routers, clock) if limits.requests_per_s else None,
        TokenBucket(limits.tokens_per_s / routers, clock) if limits.tokens_per_s else None,
        counts=counts,
    )
