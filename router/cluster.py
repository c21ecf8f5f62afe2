"""What the frontend asks about the cluster; `deployments.cluster_view` answers from Ray Serve."""

from typing import Protocol

from heliostat.status import ClusterStatus


class ClusterView(Protocol):
    """Live state, read without waiting where a request depends on it."""

    def unavailable(self, model: str) -> str | None:
        """Why the model cannot be served now, or None."""

    def problem(self) -> str | None:
        """Why not every pool has a replica that answers, or None when the cluster is ready."""

    async def status(self) -> ClusterStatus:
        """Asks every replica."""
