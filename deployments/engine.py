"""The engine interface: what computes inside a replica.

`deployments.vllm_engine` is the real one. Errors are those of `heliostat.errors`.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from heliostat.spec import Family, Pool, Transfer
from heliostat.status import ReplicaStatus
from heliostat.wire import (
    Adapter,
    DecodeRequest,
    Load,
    PrefillRequest,
    PrefillResult,
    Role,
    TokenFrame,
    Version,
)

KvListener = Callable[[str, Sequence[int], Sequence[int]], None]
"""Replica, prompt blocks that its engine keeps now, and those that it has dropped (`PrefixIndex.hashes`).

Called on the replica's event loop, by engines that cache prefixes.
"""


NOBODY = Version()
"""An engine without a replica around it need not say who it is."""


@dataclass(frozen=True)
class EngineConfig:
    """Everything a replica's engine needs; `domain` is the KV domain of its weights, `version` what it is to
    others.

    `owner` is the id under which it keeps KV, drawn anew at every start: what a restarted replica's
    predecessor kept is nobody's.
    """

    role: Role
    name: str
    pool: Pool
    family: Family
    transfer: Transfer
    weights: Path
    domain: str
    replica: str
    owner: str
    version: Version = NOBODY
    traces_url: str = ""
    """Where the engine's own spans go; empty: nowhere."""

    @property
    def caches_prefixes(self) -> bool:
        """Whether the engine keeps blocks of prompts for the next one (rules 3, 4 and 8)."""
        return self.role is Role.PREFILL or self.pool.icarus

    @property
    def pool_name(self) -> str:
        """As errors and tables call it."""
        return f"{self.role}.{self.name}"


class Engine(Protocol):
    """One engine of one replica, in one role; a prefill engine is never asked to decode, and vice versa."""

    async def start(self) -> None:
        """Load the module. Raises EngineStartError with the root cause in one line."""

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        """Write the KV of x_1 … x_{N-1} and hand out its ticket. Raises PrefillFailedError.

        When the call is cancelled, the computation stops and no KV stays behind.
        """

    def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        """The same, with a streamed ticket before the result if the prompt is long enough for one.

        Closing the generator stops the computation.
        """

    def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        """Run x_N and everything after it, one frame per engine step.

        Raises HandoffFailedError when the ticket's KV cannot be read. Closing the generator stops the
        computation and frees its KV.
        """

    async def load_adapter(self, adapter: Adapter) -> None:
        """Have an adapter in memory before its first request. Raises HeliostatError."""

    async def drop_adapter(self, digest: str) -> None:
        """No request will ask for this adapter any more."""

    async def release(self, ticket_id: str) -> bool:
        """Drop KV that nobody will fetch. True if there was any."""

    async def sweep(self) -> None:
        """Release KV whose lease ended, and take note of how tickets ended."""

    def load(self) -> Load:
        """What the engine carries now."""

    async def status(self, pid: int) -> ReplicaStatus:
        """`load` for people, with what the handoffs cost so far."""

    async def check_health(self) -> None:
        """Raise HeliostatError when the engine cannot serve any more."""

    def stop(self) -> None:
        """End the engine and its processes."""
