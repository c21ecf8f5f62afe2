"""Our policies behind Ray Serve's public seam, `ray.serve.request_router.RequestRouter`.

Serve builds one request router per handle inside the calling process, so the telemetry board that
policies read is one per process too.
"""

from typing import Final

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from heliostat.wire import DecodeRequest, PrefillRequest
from router.policy import POLICIES
from router.telemetry import TelemetryBoard

BOARD: Final = TelemetryBoard()
"""This process's view of all replicas. Serve constructs the request routers, so none can be handed in."""


def replica_name(replica_id: ReplicaID) -> str:
    """The name under which a replica reports itself (`deployments.replica`)."""
    return f"{replica_id.deployment_id.name}#{replica_id.unique_id}"


class PolicyRequestRouter(RequestRouter):  # type: ignore[misc]
    """Ranks a pool's replicas with the policy of that name; no remote call on the decision path."""

    def initialize_state(self, policy: str) -> None:
        """Serve passes `request_router_kwargs` here."""
        self._policy = POLICIES[policy]

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """One replica per rank, best first, so that Serve goes on to the next when one is full."""
        by_name = {replica_name(replica.replica_id): replica for replica in candidate_replicas}
        return [[by_name[choice.replica]] for choice in self._policy.rank(BOARD.candidates(by_name))]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: object
    ) -> None:
        request = next(iter(pending_request.args), None)
        if isinstance(request, PrefillRequest | DecodeRequest):
            BOARD.sent(
                pending_request.metadata.internal_request_id,
                request.request_id,
                replica_name(replica_id),
                len(request.token_ids),
            )

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        BOARD.ended(internal_request_id)
