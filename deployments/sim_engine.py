"""The `sim` engine: `deployments.engine.Engine` without a model, for tests of everything around an engine.

It takes the times that `heliostat.spec.SimTiming` says, nothing by default: figures of its own, or those of
a GPU or a calibration file, which are the simulator's (`simulator.profile`). It answers with tokens that
follow from the whole history of a request (`deployments.sim_tokens`). Two processes need not share memory
for a handoff: a ticket carries its domain, and the decode side takes its word for it.

A pool's `engine_args: {faults: {...}}` breaks its replicas on purpose:

    fail_prefill_containing: 98   every prefill of a prompt with that token fails
    fail_handoff_containing: 98   every handoff of one, on its decode side
    die_after_tokens: 100         after so many output tokens all streams fail, and the replica is ill
    stall_after_tokens: 100       after so many output tokens no stream gets another one
    slow: 3.0                     everything takes three times as long

Prompts repeat earlier answers: a token outside of `DEFAULT_VOCAB` is in none by chance.

Its ledger has no news of how tickets ended elsewhere: a prefill replica takes those that nobody gave up for
read, and saves cost it nothing. Loads are booked with the time that they took.

Not covered: log probabilities, stop tokens, streamed tickets, `transfer.memory_gib`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.engine import EngineConfig, KvListener
from deployments.sim_decode import SimDecode
from deployments.sim_prefill import SimPrefill
from deployments.sim_tokens import DEFAULT_VOCAB
from heliostat.errors import EngineStartError, HeliostatError
from heliostat.status import ReplicaStatus
from heliostat.wire import Adapter, DecodeRequest, Load, PrefillRequest, PrefillResult, Role, TokenFrame
from kvtransfer.ledger import Ledger
from simulator.profile import Hardware, ReplicaTiming, replica_timing
from simulator.timing import Scaled


class SimFaults(BaseModel):
    """What goes wrong on purpose in every replica of a pool; by default nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fail_prefill_containing: int | None = None
    fail_handoff_containing: int | None = None
    die_after_tokens: int | None = Field(default=None, ge=1)
    stall_after_tokens: int | None = Field(default=None, ge=1)
    slow: float = Field(default=1.0, gt=0)


class SimEngine:
    """One replica that computes nothing, in one role.

    `sleep` and the running loop's clock are all the time it knows, so a loop with another clock drives it;
    `clock` (Unix time) dates leases. `vocab` are the ids of its tokens. `on_kv` hears which prompt blocks
    come and go.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        vocab: range = DEFAULT_VOCAB,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
        on_kv: KvListener | None = None,
    ) -> None:
        """Raises EngineStartError for faults, GPUs or calibration files that do not exist."""
        self._config = config
        try:
            faults = SimFaults.model_validate(config.pool.engine_args.get("faults", {}))
        except ValidationError as error:
            raise EngineStartError(
                config.pool_name, f"faults: {error.errors()[0]['msg']}", "none: nothing was started"
            ) from error
        replica = _timed(config, faults.slow)
        self._ledger = Ledger(config.transfer.transport)
        self._prefill = SimPrefill(
            config,
            replica=replica,
            ledger=self._ledger,
            fail_containing=faults.fail_prefill_containing,
            sleep=sleep,
            clock=clock,
            on_kv=on_kv,
        )
        self._decode = SimDecode(
            config,
            vocab=vocab,
            replica=replica,
            ledger=self._ledger,
            fail_containing=faults.fail_handoff_containing,
            die_after=faults.die_after_tokens,
            stall_after=faults.stall_after_tokens,
            sleep=sleep,
            clock=clock,
        )

    @property
    def preempted(self) -> int:
        """Requests that were put back because the KV ran out."""
        return self._decode.preempted

    async def start(self) -> None:
        """There is nothing to load."""

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        return await self._prefill.prefill(request)

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield await self._prefill.prefill(request)

    def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        return self._decode.decode(request)

    async def load_adapter(self, adapter: Adapter) -> None:
        """There is nothing to load."""

    async def drop_adapter(self, digest: str) -> None:
        """Nor to drop."""

    async def release(self, ticket_id: str) -> bool:
        return self._prefill.release(ticket_id)

    async def sweep(self) -> None:
        self._prefill.sweep()

    def load(self) -> Load:
        return self._prefill.load() if self._config.role is Role.PREFILL else self._decode.load()

    async def status(self, pid: int) -> ReplicaStatus:
        return ReplicaStatus.of(self.load(), self._ledger.figures(), pid)

    async def check_health(self) -> None:
        if self._decode.death:
            raise HeliostatError(f"pool {self._config.pool_name}: the engine died: {self._decode.death}")

    def stop(self) -> None:
        self._decode.stop()


def _timed(config: EngineConfig, slow: float) -> ReplicaTiming:
    try:
        replica = replica_timing(config.pool, config.family, Hardware(), Path())
    except HeliostatError as error:
        raise EngineStartError(config.pool_name, f"sim: {error}", "none: nothing was started") from error
    factor = slow / config.pool.sim.speed
    return replica if factor == 1.0 else replica._replace(timing=Scaled(replica.timing, factor))
