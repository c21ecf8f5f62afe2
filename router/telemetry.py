"""What one router process knows about every replica: reports as they arrive, and its own in-flight count.

A row per replica in one table of numbers (`router.columns`): a decision over a thousand replicas reads it
in a few vector operations. Names appear only at the edges.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heliostat.wire import Adapter, Load, adapted_domain
from router import columns
from router.circuit import CircuitBreaker
from router.columns import OPEN_UNTIL, OWN, SINCE
from router.policy.base import Candidates
from router.pool_figures import PoolFigures
from router.prefix_index import BLOCK_TOKENS, PrefixIndex, adapter_name
from router.roster import Roster

PREFIX_BLOCKS = 1_000_000
ADAPTER_MS = 50.0
"""What it takes to load an adapter that is not in a replica's memory: tens of MB from the page cache."""

MAX_ROWS = 4096
"""Row numbers are given out once, because the index may remember them; after so many it starts anew."""

MAX_LEGS = 65_536
"""Legs and calls that are remembered after their end: a failure, or Serve's news, may come later."""

MAX_RESOLVED = 64
"""Tuples of names whose rows are remembered: one per pool, and a few that were."""


@dataclass(slots=True)
class _Row:
    """One replica. `number` is -1 once the board has forgotten it: a late call must not count elsewhere."""

    number: int
    sequence: int = -1
    readings: int = 0
    domain: str = ""


class _Call(NamedTuple):
    """`reading` is the row's count of readings when it was chosen: a later one may know of the call."""

    replica: str
    row: _Row
    num_tokens: int
    kv_tokens: int
    reading: int


class _Resolved(NamedTuple):
    names: tuple[str, ...]
    rows: NDArray[np.intp]
    domain: str


class TelemetryBoard:
    """Local and approximate: several routers need not agree, each corrects reports by its own count.

    Serve may call from its router's thread while answers arrive in another: a lock, never held for longer
    than a few microseconds, keeps counts whole.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        prefix_blocks: int = PREFIX_BLOCKS,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        self.index = PrefixIndex(prefix_blocks, block_tokens)
        self.roster = Roster()
        self._clock = clock
        self._circuits = CircuitBreaker(clock)
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._numbers: dict[str, int] = {}
        self._next_number = 1
        # Row 0 is the replica of which nothing is known; nobody writes to it.
        self._table = columns.blank(256)
        self._resolved: dict[int, _Resolved] = {}
        self._calls: dict[str, _Call] = {}
        self._legs: dict[str, tuple[str, bool]] = {}
        self._takers: OrderedDict[str, str] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._left: OrderedDict[str, None] = OrderedDict()

    # What replicas say.

    def observe(self, load: Load) -> None:
        """A report arrived; one that an answer carried past a newer one is dropped."""
        with self._lock:
            row = self._rows.get(load.replica) or self._new_row(load.replica)
            if load.sequence < row.sequence:
                return
            if load.domain != row.domain:
                row.domain = load.domain
                self._resolved.clear()
            row.sequence = load.sequence
            row.readings += 1
            self._table[:OWN, row.number] = columns.reading(load, self._clock())

    def kv_changed(self, replica: str, added: Sequence[int], removed: Sequence[int]) -> None:
        """The replica's engine says which prompt blocks (`PrefixIndex.hashes`) it keeps now, which not."""
        with self._lock:
            row = self._rows.get(replica) or self._new_row(replica)
            self.index.removed(row.number, removed)
            self.index.add(row.number, added)

    # What this router does.

    def chosen(self, call_id: str, leg_id: str, replica: str, num_tokens: int, kv_tokens: int = 0) -> None:
        """The call for a request's leg is on its way to a replica.

        `num_tokens` are the prompt tokens that it has to compute, or for a decode leg to read; `kv_tokens`
        is the KV that the call may need at its end. Both are taken until the call ends. Once its leg was
        `left`, it is not booked: nobody would end it.
        """
        if call_id not in self._left:
            self._ended.pop(call_id, None)  # Serve tries a call again under its old id
            self._book(call_id, replica, num_tokens, kv_tokens)
            self._legs.setdefault(leg_id, (call_id, False))

    def _book(self, call_id: str, replica: str, num_tokens: int, kv_tokens: int) -> None:
        with self._lock:
            self._end(call_id)  # an earlier choice did not take it
            row = self._rows.get(replica) or self._new_row(replica)
            column = self._table[:, row.number]
            column[SINCE:OPEN_UNTIL] += (1, num_tokens, kv_tokens, 1, num_tokens, kv_tokens)
            if column[OPEN_UNTIL]:
                self._circuits.tried(replica)
                column[OPEN_UNTIL] = self._circuits.open_until(replica)
            self._calls[call_id] = _Call(replica, row, num_tokens, kv_tokens, row.readings)

    def sent(self, call_id: str, leg_id: str, replica: str, num_tokens: int, kv_tokens: int = 0) -> None:
        """The replica has taken the call; said late, perhaps after its end. What was booked for it holds."""
        call = self._calls.get(call_id)
        if (call is None or call.replica != replica) and call_id not in self._ended:
            self._book(call_id, replica, num_tokens, kv_tokens)
        if call_id not in self._left:
            self._legs[leg_id] = (call_id, True)
        self._takers[leg_id] = replica
        if len(self._takers) > MAX_LEGS:
            self._takers.popitem(last=False)

    def replica_of(self, leg_id: str) -> str:
        """The replica that took the leg, also when it is over; empty when none did, or long ago."""
        return self._takers.get(leg_id, "")

    def holds(self, replica: str, hashes: Sequence[int]) -> None:
        """The prompt with these blocks (`hashes`) is computed there, or just being computed."""
        if hashes:
            with self._lock:
                row = self._rows.get(replica) or self._new_row(replica)
                self.index.add(row.number, hashes)

    def was_sent(self, leg_id: str) -> bool:
        """Whether some replica has taken the leg; false again once `left` was called."""
        return self._legs.get(leg_id, ("", False))[1]

    def left(self, leg_id: str) -> None:
        """Nobody will ask for this leg any more; one that no replica has taken is over with that."""
        call_id, taken = self._legs.pop(leg_id, ("", True))
        _remember(self._left, call_id)
        if not taken:
            with self._lock:
                self._end(call_id)

    def ended(self, call_id: str) -> None:
        """The call is over, however it went; unknown calls are ignored, so twice is once."""
        with self._lock:
            self._end(call_id)
            _remember(self._ended, call_id)

    def failed(self, replica: str, *, lost: bool = False) -> None:
        """A leg failed there (`CircuitBreaker.failed`). What a lost replica held is lost, too."""
        with self._lock:
            self._circuits.failed(replica, lost=lost)
            row = self._rows.get(replica) or self._new_row(replica)
            if lost:
                self.index.forget(self._numbers.pop(replica))
                number = self._new_number(replica)
                self._table[:, number] = self._table[:, row.number]
                row.number = number
            self._table[OPEN_UNTIL, row.number] = self._circuits.open_until(replica)

    def succeeded(self, replica: str) -> None:
        """A leg succeeded there."""
        with self._lock:
            self._circuits.succeeded(replica)
            if row := self._rows.get(replica):
                self._table[OPEN_UNTIL, row.number] = 0

    def keep(self, replicas: Iterable[str]) -> None:
        """Forget every replica but these, once the calls that were sent there have ended and it has rested.

        Its prefixes are not forgotten: a replica that only missed a beat comes back to them.
        """
        alive, now = set(replicas), self._clock()
        with self._lock:
            for replica in self._rows.keys() - alive:
                number = self._rows[replica].number
                if not self._table[OWN, number] and self._table[OPEN_UNTIL, number] <= now:
                    self._drop(replica)
            self._circuits.keep(alive | self._rows.keys())

    # What policies and admission read.

    def hashes(
        self, replicas: tuple[str, ...], token_ids: tuple[int, ...], adapter: Adapter | None = None
    ) -> tuple[int, ...]:
        """A prompt's blocks in the KV domain that these replicas write, with the adapter if there is one.

        None before the domain is known, and none for a pool that keeps no prompts.
        """
        domain = adapted_domain(self._resolve(replicas).domain, adapter)
        return self.index.hashes(domain, token_ids) if domain and self.index.max_blocks else ()

    def candidates(
        self,
        replicas: tuple[str, ...],
        hashes: Sequence[int] = (),
        num_tokens: int = 0,
        adapter: Adapter | None = None,
    ) -> Candidates:
        """What a policy needs for a prompt, in the order of `replicas`.

        Cheapest when a pool's tuple is the same object every time: its rows are remembered.
        """
        rows, now = self._resolve(replicas).rows, self._clock()
        if hashes:
            with self._lock:
                depths = self.index.depths(hashes, rows)
            cached = np.minimum(depths * self.index.block_size, num_tokens)
        else:
            cached = np.zeros(len(rows))
        adapter_ms: float | NDArray[np.float64] = 0.0
        if adapter is not None:
            with self._lock:
                adapter_ms = ADAPTER_MS * (1.0 - self.index.depths((adapter_name(adapter.digest),), rows))
        # "clip" is numpy's fast path; all rows are in the table.
        table = self._table.take(rows, axis=1, mode="clip")
        return columns.candidates(table, replicas, cached, now, adapter_ms)

    def figures(self, replicas: Iterable[str]) -> PoolFigures:
        """The pool of these replicas, for admission."""
        rows = self._resolve(tuple(replicas)).rows
        return columns.figures(self._table.take(rows, axis=1, mode="clip"), self._clock())

    # Rows. `_resolve` takes the lock, the others are called with it.

    def _resolve(self, replicas: tuple[str, ...]) -> _Resolved:
        found = self._resolved.get(id(replicas))
        if found is not None and found.names is replicas:
            return found
        with self._lock:
            rows = [self._rows.get(name) for name in replicas]
            numbers = np.array([row.number if row else 0 for row in rows], np.intp)
            found = _Resolved(replicas, numbers, next((row.domain for row in rows if row and row.domain), ""))
            if len(self._resolved) >= MAX_RESOLVED:
                self._resolved.clear()
            self._resolved[id(replicas)] = found
        return found

    def _new_row(self, replica: str) -> _Row:
        number = self._numbers.get(replica) or self._new_number(replica)
        self._table[:, number] = self._table[:, 0]
        self._table[OPEN_UNTIL, number] = self._circuits.open_until(replica)
        self._resolved.clear()
        row = self._rows[replica] = _Row(number)
        return row

    def _new_number(self, replica: str) -> int:
        if self._next_number >= max(MAX_ROWS, 2 * len(self._rows)):
            self._renumber()
        number = self._numbers[replica] = self._next_number
        self._next_number += 1
        if number >= self._table.shape[1]:
            self._table = np.hstack((self._table, columns.blank(self._table.shape[1])))
        self._resolved.clear()
        return number

    def _drop(self, replica: str) -> None:
        if row := self._rows.pop(replica, None):
            row.number = -1
            self._resolved.clear()

    def _renumber(self) -> None:
        """Pack the rows in use together; the index, which knows them by number, fills again."""
        self.index.clear()
        table = columns.blank(max(256, 2 * len(self._rows)))
        for number, row in enumerate(self._rows.values(), start=1):
            table[:, number] = self._table[:, row.number]
            row.number = number
        self._table = table
        self._numbers = {replica: row.number for replica, row in self._rows.items()}
        self._next_number = len(self._rows) + 1
        self._resolved.clear()

    def _end(self, call_id: str) -> None:
        call = self._calls.pop(call_id, None)
        if call is None or (number := call.row.number) < 0:
            return
        tokens, kv = call.num_tokens, call.kv_tokens
        self._table[OWN:OPEN_UNTIL, number] -= (1, tokens, kv)
        if call.reading == call.row.readings:
            self._table[SINCE:OWN, number] -= (1, tokens, kv)


def _remember(over: OrderedDict[str, None], name: str) -> None:
    over[name] = None
    if len(over) > MAX_LEGS:
        over.popitem(last=False)
