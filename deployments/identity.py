"""Who a replica is, and what it refuses: the last check that prompt KV meets a module that may read it.

Routers have asked the same question before (`router.pairing`), with what they knew then.
"""

from dataclasses import replace

from heliostat.errors import HandoffFailedError, PrefillFailedError
from heliostat.wire import DecodeRequest, PrefillRequest, PrefillResult, ReplicaVersion, Version
from kvtransfer.fit import version_misfit, with_adapter

MAX_PARTNERS = 1024
"""Names of weights that a replica remembers as deployed together with its own; the oldest go first."""


class Identity:
    """One replica's version, and what it has been told of the other side."""

    def __init__(self, replica: str, version: Version) -> None:
        self.replica = replica
        self._version = version

    @property
    def weights(self) -> str:
        """The digest of its weights."""
        return self._version.weights

    def told(self, source: str, partners: tuple[str, ...]) -> ReplicaVersion:
        """A router's spec has these partners for weights of the name `source`; the answer says who this is.

        A spec that has other weights in this pool says nothing of these: its pool is on its way to another
        version, or this replica is.
        """
        known = self._version.partners
        new = tuple(partner for partner in partners if partner not in known)
        if source == self._version.source and new:
            self._version = replace(self._version, partners=(*known, *new)[-MAX_PARTNERS:])
        return ReplicaVersion(self.replica, self._version)

    def check_prefill(self, request: PrefillRequest) -> None:
        """Raises PrefillFailedError when the router wants another version."""
        if request.versions is not None and self._version.id not in request.versions:
            raise PrefillFailedError(f"{self.replica} runs another version than the request wants")

    def sign(self, result: PrefillResult, request: PrefillRequest) -> PrefillResult:
        """The result, whose ticket says who wrote its KV."""
        writer = with_adapter(self._version, request.adapter)
        return replace(result, ticket=replace(result.ticket, writer=writer))

    def check_decode(self, request: DecodeRequest) -> None:
        """Raises HandoffFailedError, which names the first difference, for KV that is not for this module."""
        if request.versions is not None and self._version.id not in request.versions:
            raise HandoffFailedError(f"{self.replica} runs another version than the request wants")
        writer = request.ticket.writer if request.ticket else None
        if writer is None:
            return
        reader = with_adapter(self._version, request.adapter)
        if problem := version_misfit(writer, reader, request.untrained_pair):
            raise HandoffFailedError(f"{self.replica}: {problem}")
