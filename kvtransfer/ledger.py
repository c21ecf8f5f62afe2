"""One record per handoff on each side: committed → admitted → released, and what it cost.

Pure book-keeping: time is a parameter. A ticket that nobody settles ends with its lease.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from heliostat.status import HandoffFigures
from kvtransfer.handoff import CopyRecord
from kvtransfer.transport import Outcome, Settlement

GRACE_S = 1.0
"""News of a ticket's end may arrive after its lease; only then is it counted as expired."""

MAX_KNOWN = 4096
"""Tickets that are remembered after their end."""


@dataclass(slots=True)
class _Open:
    domain: str
    num_blocks: int
    committed_s: float
    ends_s: float
    admitted: bool = False


@dataclass(slots=True)
class _Sums:
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    ms: float = 0.0
    hidden_ms: float = 0.0
    stranded_block_s: float = 0.0


class Ledger:
    """The handoffs of one replica, by KV domain."""

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self._open: dict[str, _Open] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        self._sums: defaultdict[str, _Sums] = defaultdict(_Sums)

    def commit(self, ticket_id: str, domain: str, num_blocks: int, now_s: float, lease_s: float) -> None:
        """A ticket is out (its owner), or in (its reader, whose lease is as long as the request).

        Said again, when announced KV is whole, it only begins the lease anew.
        """
        if ticket_id in self._known:
            if ticket := self._open.get(ticket_id):
                ticket.ends_s = now_s + lease_s
            return
        self._known[ticket_id] = None
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        self._open[ticket_id] = _Open(domain, num_blocks, now_s, now_s + lease_s)
        self._sums[domain].counts["committed"] += 1

    def admit(self, ticket_id: str) -> None:
        """Its KV was read."""
        if (ticket := self._open.get(ticket_id)) and not ticket.admitted:
            ticket.admitted = True
            self._sums[ticket.domain].counts["admitted"] += 1

    def end(self, ticket_id: str, outcome: Outcome, now_s: float) -> None:
        """It is over; unknown tickets are ignored, so twice is once."""
        if outcome is Outcome.ADMITTED:
            self.admit(ticket_id)
        ticket = self._open.pop(ticket_id, None)
        if ticket is None:
            return
        sums = self._sums[ticket.domain]
        sums.counts["expired" if outcome is Outcome.EXPIRED else "released"] += 1
        if not ticket.admitted:
            sums.stranded_block_s += ticket.num_blocks * (now_s - ticket.committed_s)

    def settle(self, settlements: Iterable[Settlement], now_s: float) -> None:
        """What readers said, and then the leases that are over."""
        for settlement in settlements:
            self.end(settlement.name, settlement.outcome, now_s)
        for ticket_id, ticket in list(self._open.items()):
            if ticket.ends_s + GRACE_S < now_s:
                self.end(ticket_id, Outcome.EXPIRED, now_s)

    def copied(self, record: CopyRecord) -> None:
        """A copy is over, well or not."""
        sums = self._sums[record.domain]
        if record.failure is not None:
            sums.failures[record.kind] += 1
            return
        sums.counts["copies"] += 1
        sums.num_bytes += record.num_bytes
        sums.ms += record.ms
        sums.hidden_ms += record.hidden_ms

    @property
    def ended(self) -> int:
        """How many tickets are over."""
        return sum(sums.counts["released"] + sums.counts["expired"] for sums in self._sums.values())

    @property
    def open(self) -> int:
        """How many are not."""
        return len(self._open)

    def __contains__(self, ticket_id: str) -> bool:
        return ticket_id in self._open

    def figures(self) -> tuple[HandoffFigures, ...]:
        """By KV domain."""
        waiting = Counter(ticket.domain for ticket in self._open.values())
        return tuple(
            HandoffFigures(
                transport=self._transport,
                domain=domain,
                open=waiting[domain],
                committed=sums.counts["committed"],
                admitted=sums.counts["admitted"],
                released=sums.counts["released"],
                expired=sums.counts["expired"],
                copies=sums.counts["copies"],
                num_bytes=sums.num_bytes,
                ms=sums.ms,
                hidden_ms=sums.hidden_ms,
                stranded_block_s=sums.stranded_block_s,
                failures=dict(sums.failures),
            )
            for domain, sums in sorted(self._sums.items())
        )
