"""One decision: hash the prompt, read the board, ask the policy, book the choice; all in this process."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from heliostat.wire import Adapter, DecodeRequest, PrefillRequest
from router.policy import LegRequest, Policy
from router.prefix_index import adapter_name
from router.route_notes import RouteNotes
from router.telemetry import TelemetryBoard

DEFAULT_OUTPUT = 256
"""Output tokens expected of a model without history."""

SESSION_TOKENS = 256
"""Turns of a conversation begin alike; so much of the prompt stands for a session without a name."""

SAMPLED = "-01"
"""How the `traceparent` of a leg ends whose spans are kept."""

Leg = PrefillRequest | DecodeRequest


class _Subset(NamedTuple):
    """The replicas that a leg may have, and where they are among all; None: they are all."""

    names: tuple[str, ...]
    indices: tuple[int, ...] | None


class Chooser:
    """Chooses replicas of one pool, as one of so many `routers`. `draw` gives numbers in [0, 1).

    `notes` hears how legs that are traced were placed.
    """

    def __init__(
        self,
        board: TelemetryBoard,
        policy: Policy,
        draw: Callable[[], float],
        *,
        tpot_target_ms: float = 0.0,
        routers: int = 1,
        notes: RouteNotes | None = None,
    ) -> None:
        self._board = board
        self._policy = policy
        self._draw = draw
        self._tpot_target_ms = tpot_target_ms
        self._share = 1.0 / routers
        self._subsets: dict[frozenset[str] | None, _Subset] = {}
        self._subsets_of: tuple[tuple[str, ...], int] = ((), -1)
        self._notes = notes

    def choose(self, replicas: tuple[str, ...], call_id: str, leg: Leg | None) -> tuple[int, ...]:
        """The best replicas, by index; the call is booked on the first of them from now on.

        Not only once the replica has accepted: the next request of a burst is ranked before that. Pass
        the same tuple as long as the pool is the same. A call that carries no leg is ranked, not booked.
        Only replicas of the leg's versions are there for it; none when there is no such replica.
        """
        if leg is None:
            candidates = self._board.candidates(replicas)
            return self._policy.rank(candidates, LegRequest(0, draw=self._draw())).indices
        subset = self._subset(replicas, leg.versions)
        if subset.indices is None:
            return self._choose(replicas, call_id, leg)
        return tuple([subset.indices[index] for index in self._choose(subset.names, call_id, leg)])

    def _subset(self, replicas: tuple[str, ...], versions: frozenset[str] | None) -> "_Subset":
        """Remembered, so that the board gets the same tuple of names every time."""
        roster = self._board.roster
        known, changes = self._subsets_of
        if known is not replicas or changes != roster.changes:
            self._subsets.clear()
            self._subsets_of = (replicas, roster.changes)
        found = self._subsets.get(versions)
        if found is None:
            indices = roster.select(replicas, versions)
            names = replicas if indices is None else tuple([replicas[index] for index in indices])
            found = self._subsets[versions] = _Subset(names, indices)
        return found

    def _choose(self, replicas: tuple[str, ...], call_id: str, leg: Leg) -> tuple[int, ...]:
        # What a decode replica holds was written by the base, whatever adapter reads it (rule 8).
        writer = leg.adapter if isinstance(leg, PrefillRequest) else None
        hashes = self._board.hashes(replicas, leg.token_ids, writer)
        num_tokens, output = leg_tokens(leg)
        session = leg.session or f"{leg.model}:{hash(leg.token_ids[:SESSION_TOKENS])}"
        return self.place(
            replicas,
            call_id,
            leg.request_id,
            num_tokens,
            output,
            hashes,
            session=session,
            avoid=leg.avoid,
            adapter=leg.adapter,
            returns=isinstance(leg, PrefillRequest) and bool(leg.session or leg.reuse_soon),
            noted=leg.traceparent.endswith(SAMPLED),
        )

    def place(
        self,
        replicas: tuple[str, ...],
        call_id: str,
        leg_id: str,
        num_tokens: int,
        output: int = 0,
        hashes: Sequence[int] = (),
        *,
        session: str = "",
        avoid: frozenset[str] = frozenset(),
        adapter: Adapter | None = None,
        returns: bool = False,
        noted: bool = False,
    ) -> tuple[int, ...]:
        """`choose` for a leg in numbers: tokens of its prompt, tokens expected of it, names of its blocks.

        `session` and `returns` as in `LegRequest`.
        """
        candidates = self._board.candidates(replicas, hashes, num_tokens, adapter)
        request = LegRequest(
            num_tokens,
            output,
            session,
            self._draw(),
            avoid,
            self._tpot_target_ms,
            self._share,
            reuses=bool(hashes and output),
            returns=returns,
        )
        ranking = self._policy.rank(candidates, request)
        if ranking.indices:
            best = ranking.indices[0]
            new_tokens = num_tokens - int(candidates.cached_tokens[best])
            self._board.chosen(call_id, leg_id, replicas[best], new_tokens, num_tokens + output)
            self._board.holds(replicas[best], hashes)
            if adapter is not None:
                self._board.holds(replicas[best], (adapter_name(adapter.digest),))
            if noted and self._notes is not None:
                self._notes.chosen(leg_id, replicas[best], len(replicas), ranking.costs[0], ranking.reason())
        return ranking.indices

    def sent(self, replica: str, call_id: str, leg: Leg) -> None:
        """The replica has taken the call; Serve may have gone on to another than the first."""
        num_tokens, output = leg_tokens(leg)
        self._board.sent(call_id, leg.request_id, replica, num_tokens, num_tokens + output)


def leg_tokens(leg: Leg) -> tuple[int, int]:
    """Tokens of KV that the leg starts with, and output tokens that it is expected to add."""
    if isinstance(leg, PrefillRequest):
        return len(leg.token_ids), 0
    output = leg.expected_tokens or DEFAULT_OUTPUT
    return len(leg.token_ids) + len(leg.generated), min(output, leg.max_tokens or output)
