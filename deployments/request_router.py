"""Our policies behind Ray Serve's public seam, `ray.serve.request_router.RequestRouter`.

Serve builds one request router per handle inside the calling process, so the telemetry board that
policies read is one per process too.
"""

import time

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from deployments import board
from deployments.names import pool_key, replica_name
from heliostat.wire import DecodeRequest, PrefillRequest
from router.choice import Chooser


def name_of(replica_id: ReplicaID) -> str:
    """The name under which a replica reports itself (`deployments.replica`)."""
    return replica_name(replica_id.deployment_id.name, replica_id.unique_id)


class PolicyRequestRouter(RequestRouter):  # type: ignore[misc]
    """Ranks a pool's replicas with the policy of that name; no remote call on the decision path."""

    def initialize_state(self) -> None:
        """Serve calls this at the end of its constructor."""
        self._chooser: Chooser | None = None
        self._candidates: list[RunningReplica] = []
        self._names: tuple[str, ...] = ()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """One replica per rank, best first, so that Serve goes on to the next when one is full.

        None when no replica is of the leg's versions; Serve asks again after a while.
        """
        if pending_request:
            # Else Serve (2.60) asks again at once, and for ever when nothing was chosen: no await that waits
            # lies on its way, so the event loop, and with it the router, stands still.
            pending_request.routing_context.should_backoff = True
        # Serve passes the same list until the replicas change, so the names need no second look.
        if candidate_replicas is not self._candidates or len(candidate_replicas) != len(self._names):
            self._candidates = candidate_replicas
            self._names = tuple(name_of(replica.replica_id) for replica in candidate_replicas)
            if self._chooser is None and candidate_replicas:
                self._chooser = board.chooser(*pool_key(candidate_replicas[0].replica_id.deployment_id.name))
        if self._chooser is None:
            return []
        call_id = pending_request.metadata.internal_request_id if pending_request else ""
        # Serve (2.60) asks once more for a request that another one's turn has placed: that one is booked
        # already, or over, and nobody would ever end a second booking.
        leg = None if pending_request and pending_request.future.done() else _leg(pending_request)
        start = time.perf_counter()
        indices = self._chooser.choose(self._names, call_id, leg)
        board.ROUTING.add((time.perf_counter() - start) * 1e3)
        return [[candidate_replicas[index]] for index in indices]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: object
    ) -> None:
        if self._chooser and (leg := _leg(pending_request)):
            call_id = pending_request.metadata.internal_request_id
            self._chooser.sent(name_of(replica_id), call_id, leg)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        board.BOARD.ended(internal_request_id)


def _leg(pending_request: PendingRequest | None) -> PrefillRequest | DecodeRequest | None:
    """The leg that a call carries; None for calls of other methods."""
    request = next(iter(pending_request.args), None) if pending_request else None
    return request if isinstance(request, PrefillRequest | DecodeRequest) else None
