"""What a pool can take, as telemetry says it, and as this router may use it."""

import math
from typing import Protocol

from heliostat.wire import Role
from router.admission.slot import Slot
from router.pool_figures import PoolFigures


class PoolCapacity(Protocol):
    """Where admission gets its figures. It answers from memory, without waiting."""

    def slots(self, role: Role, pool: str) -> PoolFigures:
        """The figures of a pool of the spec."""


class SlotLedger:
    """How many slots and how much KV of one decode pool this router may still hand out.

    A pool without replicas, or whose replicas have never reported, takes any number: the pipeline finds
    out, and says so at once, where a queue would only time out.

    Figures are read on beats alone. At a beat, whatever runs in the pool and is not ours is the other
    routers', and of what is free each of R routers may take an Rth (rounded up) until the next beat. So
    our own slots are counted exactly, those of others as they were one beat ago. R routers that round up
    or read at different moments can hand out a few slots too many: those requests wait in a replica.

    A slot is held from before the prefill, so telemetry does not see it at once. It counts as seen from
    the first beat after its first token. Until then it claims its prompt and its expected output from
    the free KV; after that, the part of its expected output that has not come. KV is the pool's sum: whether
    one replica has it in one piece is the decode policy's affair.
    """

    def __init__(self, routers: int, replicas: int) -> None:
        """`replicas`: how many the pool may have."""
        self._routers = routers
        self._replicas = replicas
        self._known = False
        self.most = math.inf
        """Slots that this router could hold if nothing ran and the pool were as large as it gets."""
        self._limit = 0.0
        self._free_kv = math.inf
        self._claimed = 0
        self._unread = 0
        """Tokens served since the beat to slots that are in its figures: KV in use that these call free."""
        self._seen = 0
        self._others = 0.0
        self._begun: set[Slot] = set()
        self._held: set[Slot] = set()

    @property
    def held(self) -> int:
        """Slots that this router holds."""
        return len(self._held)

    @property
    def limit(self) -> float | None:
        """Slots that this router may hold at a time until the next beat; None: nobody knows yet."""
        return self._limit if self._known else None

    def beat(self, figures: PoolFigures) -> None:
        """New figures."""
        for slot in self._begun:
            self._seen += 1
            self._claimed -= slot.claim
            slot.seen = True
            self._claimed += slot.claim
        self._begun.clear()
        self._others = max(0.0, figures.running - self._seen)
        free = figures.slots - self._others - self.held
        self._known = figures.replicas > 0 and (self._known or figures.fresh > 0)
        if figures.fresh:
            whole = figures.slots / figures.fresh * max(self._replicas, figures.replicas)
            self.most = whole if math.isinf(whole) else max(1, math.ceil(math.floor(whole) / self._routers))
        part = free if free < 0 or math.isinf(free) else math.ceil(math.floor(free) / self._routers)
        self._limit = self.held + part
        self._free_kv = figures.free_kv_tokens
        self._unread = 0

    def free_slots(self) -> float:
        """Slots that this router may hand out now, not below 0; infinite when nobody knows."""
        return max(0.0, self._limit - self.held) if self._known else math.inf

    def fits(self, tokens: int) -> bool:
        """Whether there is KV for so many tokens. An empty pool takes any request: waiting frees nothing."""
        if not self._known or not (self.held or self._others):
            return True
        return tokens <= self._free_kv - self._claimed - self._unread

    def take(self, slot: Slot) -> None:
        """The slot is handed out."""
        self._held.add(slot)
        self._claimed += slot.claim

    def serve(self, slot: Slot, tokens: int) -> None:
        """New output tokens of a slot that is held."""
        self._claimed -= slot.claim
        slot.output_tokens += tokens
        self._claimed += slot.claim
        if slot.seen:
            self._unread += tokens
        else:
            self._begun.add(slot)

    def holds(self, slot: Slot) -> bool:
        """Whether the slot is out."""
        return slot in self._held

    def give_back(self, slot: Slot) -> None:
        """The request is over. Its KV is free at once, not only from the next reading on."""
        self._held.remove(slot)
        self._claimed -= slot.claim
        self._begun.discard(slot)
        if slot.seen:
            self._seen -= 1
            self._free_kv += slot.prompt_tokens + slot.output_tokens
