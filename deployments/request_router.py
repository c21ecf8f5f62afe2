"""Our policies behind Ray Serve's public seam, `ray.serve.request_router.RequestRouter`.

Serve builds one request router per handle inside the calling process, so the telemetry board that
policies read is one per process too.
"""

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from deployments import board
from heliostat.wire import DecodeRequest, PrefillRequest
from kvtransfer.handoff import digest_tokens
from router.policy import POLICIES


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
        leg = _leg(pending_request)
        # A decode pool holds no prompts: its replicas read them.
        digest = digest_tokens(leg.token_ids) if isinstance(leg, PrefillRequest) else ""
        num_tokens = len(leg.token_ids) if leg else 0
        choices = self._policy.rank(board.BOARD.candidates(by_name, digest, num_tokens))
        if choices and pending_request and leg:
            # Counted from now on, not only once the replica has accepted: the next request of a burst
            # is ranked before that.
            call_id, best = pending_request.metadata.internal_request_id, choices[0].replica
            board.BOARD.chosen(call_id, leg.request_id, best, num_tokens)
            if digest:
                board.BOARD.holds(digest, best)
        return [[by_name[choice.replica]] for choice in choices]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: object
    ) -> None:
        if leg := _leg(pending_request):
            board.BOARD.sent(
                pending_request.metadata.internal_request_id,
                leg.request_id,
                replica_name(replica_id),
                len(leg.token_ids),
            )

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        board.BOARD.ended(internal_request_id)


def _leg(pending_request: PendingRequest | None) -> PrefillRequest | DecodeRequest | None:
    """The leg that a call carries; None for calls of other methods."""
    request = next(iter(pending_request.args), None) if pending_request else None
    return request if isinstance(request, PrefillRequest | DecodeRequest) else None
