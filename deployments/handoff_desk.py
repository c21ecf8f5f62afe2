"""A replica's side of its handoffs: tickets are made, looked up, settled and booked here.

The engine's worker moves the bytes (`kvtransfer.connector`); this runs in the replica's own process,
beside the event loop: a transport call may have to wait for another process.
"""

import asyncio
import json
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from deployments.engine import EngineConfig
from heliostat.errors import TransportError
from heliostat.status import HandoffFigures
from heliostat.wire import PrefillRequest, Ticket
from kvtransfer.handoff import Announcement, CopyRecord, Direction, HandoffParams
from kvtransfer.ledger import Ledger
from kvtransfer.registry import create_client
from kvtransfer.transport import Outcome

MAX_KEPT = 4096
"""Prompts that are remembered as possibly still in the store."""

ENDLESS_S = float("inf")

ROOM_POLL_S = 0.02
"""Readers settle tickets with the store; a replica whose store is full asks it this often."""

logger = logging.getLogger(__name__)


class HandoffDesk:
    """The tickets of one replica, in either role."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._client = create_client(config.transfer, config.owner)
        self._ledger = Ledger(config.transfer.transport)
        self._address = ""
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._releases: set[asyncio.Task[None]] = set()

    # Prefill.

    async def open(self) -> None:
        """The engine has started: learn where readers find its KV. Raises TransportError."""
        self._address = await asyncio.to_thread(self._client.address)

    def new_params(self, domain: str, prefix_digest: str, num_tokens: int) -> HandoffParams:
        """What tells the engine to save a prompt's KV, under a name that is new."""
        return HandoffParams(Direction.SAVE, uuid.uuid4().hex, domain, prefix_digest, num_tokens)

    async def share(self, prefix_digest: str) -> Ticket | None:
        """A ticket for KV that the store still holds: the same prompt, asked again, is not computed."""
        if prefix_digest not in self._kept:
            return None
        ticket_id = uuid.uuid4().hex
        header = await asyncio.to_thread(self._client.share, prefix_digest, ticket_id)
        if header is None:
            self._kept.pop(prefix_digest, None)
            return None
        params = HandoffParams(Direction.SAVE, ticket_id, header.domain, prefix_digest, header.num_tokens)
        return self._committed(params, header.num_blocks, header.num_bytes)

    def commit(self, params: HandoffParams, record: CopyRecord) -> Ticket:
        """The KV is whole: its ticket."""
        self._kept[params.prefix_digest] = None
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return self._committed(params, record.num_blocks, record.num_bytes)

    def announce(self, params: HandoffParams, announcement: Announcement) -> Ticket:
        """The last chunk has begun: a ticket whose KV is still on its way."""
        ticket = self._committed(params, announcement.num_blocks, announcement.num_bytes)
        return replace(ticket, streamed=True)

    def _committed(self, params: HandoffParams, num_blocks: int, num_bytes: int) -> Ticket:
        lease_s = self._config.transfer.lease_s
        self._ledger.commit(params.ticket_id, params.domain, num_blocks, time.monotonic(), lease_s)
        return Ticket(
            ticket_id=params.ticket_id,
            transport=self._config.transfer.transport,
            address=self._address,
            domain=params.domain,
            prefix_digest=params.prefix_digest,
            num_tokens=params.num_tokens,
            num_blocks=num_blocks,
            num_bytes=num_bytes,
            owner=self._config.replica,
            expires_at_s=time.time() + lease_s,
        )

    def hand_through(self, connector: str, request: PrefillRequest, params: Mapping[str, object]) -> Ticket:
        """A ticket around what a connector that is not ours answered: nothing else in it means anything."""
        return Ticket(
            ticket_id=request.request_id,
            transport=connector,
            address="",
            domain=self._config.domain,
            prefix_digest="",
            num_tokens=len(request.token_ids),
            num_blocks=0,
            num_bytes=0,
            owner=self._config.replica,
            expires_at_s=0.0,
            raw=json.dumps(params),
        )

    async def room_comes(self, others: Callable[[], bool]) -> bool:
        """Wait until a ticket of ours is over, for a save that found no room.

        False when no ticket is out, and `others` says that none is being made: then there never will be.
        """
        ended = self._ledger.ended
        while self._ledger.open or others():
            await self._settle()
            if self._ledger.ended > ended:
                return True
            await asyncio.sleep(ROOM_POLL_S)
        return False

    async def withdraw(self, ticket_id: str) -> bool:
        """Nobody will fetch this ticket; ignored by all replicas but its owner."""
        if ticket_id not in self._ledger:
            return False
        self._ledger.end(ticket_id, Outcome.RELEASED, time.monotonic())
        return await asyncio.to_thread(self._client.release, ticket_id, self._address, Outcome.RELEASED)

    def discard(self, ticket_id: str) -> None:
        """A prefill was cancelled: a save that was just done leaves a ticket that nobody knows."""
        self._release(ticket_id, self._address, Outcome.RELEASED)

    # Decode.

    def admit(self, ticket: Ticket) -> None:
        """A ticket came in with a request."""
        self._ledger.commit(ticket.ticket_id, ticket.domain, ticket.num_blocks, time.monotonic(), ENDLESS_S)

    def admitted(self, ticket: Ticket) -> None:
        """Its KV is read, by every sequence that wanted it: its name is free."""
        self._ledger.admit(ticket.ticket_id)
        self._release(ticket.ticket_id, ticket.address, Outcome.ADMITTED)

    def done(self, ticket: Ticket) -> None:
        """Its request is over."""
        self._ledger.end(ticket.ticket_id, Outcome.RELEASED, time.monotonic())

    # Both.

    def copied(self, record: CopyRecord) -> None:
        """The engine's worker has done a copy."""
        self._ledger.copied(record)

    async def sweep(self) -> None:
        """Release what is past its lease, and book what became of our tickets."""
        if self._config.transfer.connector is not None:
            return  # whatever keeps KV then is not ours
        try:
            await asyncio.to_thread(self._client.sweep)
            await self._settle()
        except TransportError as error:
            logger.warning("%s: cannot sweep: %s", self._config.replica, error)

    async def figures(self) -> tuple[HandoffFigures, ...]:
        """What the ledger says, with the newest news."""
        if self._address:
            try:
                await self._settle()
            except TransportError as error:
                logger.warning("%s: no news of our tickets: %s", self._config.replica, error)
        return self._ledger.figures()

    async def _settle(self) -> None:
        self._ledger.settle(await asyncio.to_thread(self._client.settled), time.monotonic())

    def _release(self, ticket_id: str, address: str, outcome: Outcome) -> None:
        """In the background: whoever waits for tokens must not wait for this."""
        task = asyncio.create_task(self._release_now(ticket_id, address, outcome))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release_now(self, ticket_id: str, address: str, outcome: Outcome) -> None:
        try:
            await asyncio.to_thread(self._client.release, ticket_id, address, outcome)
        except TransportError as error:
            # The owner is gone, and what it kept with it; or the lease will end what we could not.
            logger.info("%s: ticket %s is left to its lease: %s", self._config.replica, ticket_id, error)
