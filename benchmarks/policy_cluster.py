"""A cluster in one process and in virtual time: the production router over `sim` engines.

What Ray does in between (`deployments.pools`, `deployments.request_router`) is done here in a few lines: rank
on the board, book what was chosen, call the replica, book its answer. A call takes `CALL_S` each way.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deployments.engine import EngineConfig, KvListener
from deployments.sim_engine import SimEngine
from heliostat.errors import LegFailedError
from heliostat.spec import Family, Limits, Model, Pool, Replicas, SimTiming, Spec
from heliostat.wire import DecodeRequest, Load, PrefillRequest, PrefillResult, Role, Ticket, TokenFrame
from router.accounts import Accounts
from router.admission import Admission, PoolFigures, Slot
from router.choice import Chooser
from router.door import Admission as Door
from router.pipeline import Pipeline
from router.policy import POLICIES, Policy
from router.route import Route
from router.telemetry import TelemetryBoard
from simulator.router import MeanOutputs

CALL_S = 0.001
BEAT_S = 0.1
REPLICAS = 4
TTFT_MS = 1000.0
TPOT_MS = 25.0


class Choice(NamedTuple):
    """What routes: a policy per role, whether admission stands before the pools, and whether prefill replicas
    tell every router which prompt blocks they keep (`TelemetryBoard.kv_changed`)."""

    prefill: str
    decode: str
    admission: bool = True
    kv_events: bool = False


def make_spec(models: tuple[str, ...]) -> Spec:
    """One prefill module and one decode module under all models, so every figure is the routing's."""
    prefill = Pool(
        weights="prefill",
        engine="sim",
        replicas=Replicas(min=REPLICAS, max=REPLICAS),
        sim=SimTiming(prefill_tokens_per_s=8000.0, kv_tokens=24_000),
    )
    decode = Pool(
        weights="decode",
        engine="sim",
        replicas=Replicas(min=REPLICAS, max=REPLICAS),
        sim=SimTiming(
            step_ms=8.0, per_request_ms=0.25, per_kilotoken_ms=0.2, handoff_gib_per_s=10.0, kv_tokens=80_000
        ),
        max_running=28,  # so that a full batch is within the target
        tpot_ms=TPOT_MS,
    )
    limits = Limits(queue_s=10.0)
    return Spec(
        family=Family(base="sim"),
        prefill={"p": prefill},
        decode={"d": decode},
        models={model: Model(prefill="p", decode="d", limits=limits) for model in models},
    )


class SimPool:
    """One pool as one router sees it: `router.pipeline.PrefillPool` and `DecodePool`."""

    def __init__(
        self,
        engines: Mapping[str, SimEngine],
        policy: Policy,
        board: TelemetryBoard,
        draw: random.Random,
        routers: int = 1,
    ) -> None:
        self._engines = engines
        self._names = tuple(engines)
        self._chooser = Chooser(board, policy, draw.random, tpot_target_ms=TPOT_MS, routers=routers)
        self._board = board
        self._seen: dict[str, Load] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Its replicas, always the same object (`TelemetryBoard.candidates`)."""
        return self._names

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        with self._call(request) as replica:
            await asyncio.sleep(CALL_S)
            result = await self._engines[replica].prefill(request)
            await asyncio.sleep(CALL_S)
            self._board.observe(result.load)
        return result

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield await self.prefill(request)

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        """No pool here continues what it has kept."""
        return 0

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        with self._call(request) as replica:
            await asyncio.sleep(CALL_S)
            async with aclosing(self._engines[replica].decode(request)) as frames:
                async for frame in frames:
                    # One message per engine step brings all of its frames and one load.
                    if frame.load is not self._seen.get(replica):
                        self._seen[replica] = frame.load
                        self._board.observe(frame.load)
                    yield frame

    async def release(self, ticket: Ticket) -> None:
        if engine := self._engines.get(ticket.owner):
            await engine.release(ticket.ticket_id)

    @contextmanager
    def _call(self, leg: PrefillRequest | DecodeRequest) -> Iterator[str]:
        """Chooses a replica for the leg, and books it on the board to its end."""
        call_id = leg.request_id
        replica = self._names[self._chooser.choose(self._names, call_id, leg)[0]]
        self._chooser.sent(replica, call_id, leg)
        try:
            yield replica
            self._board.succeeded(replica)
        except LegFailedError as error:
            if error.replica:
                self._board.failed(error.replica, lost=error.lost)
            raise
        finally:
            self._board.ended(call_id)
            self._board.left(call_id)


class OpenDoor:
    """No admission: whoever comes goes on to the pools."""

    def __init__(self) -> None:
        self._outputs = MeanOutputs()

    @asynccontextmanager
    async def slot(
        self,
        model: str,
        prompt_tokens: int,
        max_tokens: int,
        priority: int = 0,
        deadline_s: float | None = None,
        expected_tokens: int = 0,
    ) -> AsyncGenerator[Slot, None]:
        slot = Slot(model, "d", prompt_tokens, self.expected_tokens(model, max_tokens), _count)
        yield slot
        self._outputs.add(model, slot.output_tokens)

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        return min(self._outputs.expected(model), max_tokens)


def _count(slot: Slot, tokens: int) -> None:
    slot.output_tokens += tokens


class _BoardCapacity:
    """`router.admission.PoolCapacity` over the board."""

    def __init__(self, board: TelemetryBoard, pools: Mapping[tuple[Role, str], SimPool]) -> None:
        self._board = board
        self._pools = pools

    def slots(self, role: Role, pool: str) -> PoolFigures:
        return self._board.figures(self._pools[role, pool].names)


@dataclass(frozen=True, slots=True)
class RouterProcess:
    """One router replica: a board, a door and a pipeline of its own."""

    board: TelemetryBoard
    pipeline: Pipeline
    admission: Admission | None


class SimCluster:
    """Engines, and so many routers over them that do not see each other. Made on a running loop."""

    def __init__(self, spec: Spec, choice: Choice, *, routers: int, slow: float, seed: int) -> None:
        self.routers: list[RouterProcess] = []
        on_kv = self._kv_changed if choice.kv_events else None
        self.engines = {
            key: self._replicas(spec, *key, pool, slow, on_kv) for key, pool in spec.pools().items()
        }
        self.routers = [self._router(spec, choice, routers, f"{seed} {number}") for number in range(routers)]

    @staticmethod
    def _replicas(
        spec: Spec, role: Role, name: str, pool: Pool, slow: float, on_kv: KvListener | None
    ) -> dict[str, SimEngine]:
        now = asyncio.get_running_loop().time
        engines = {}
        for number in range(pool.replicas.max):
            faults = {"faults": {"slow": slow if number == 0 else 1.0}}
            replica = f"{role}.{name}#{number}"
            config = EngineConfig(
                role, name, pool.model_copy(update={"engine_args": faults}), spec.family, spec.transfer,
                Path(), pool.weights, replica, replica,
            )  # fmt: skip
            engines[replica] = SimEngine(config, clock=now, on_kv=on_kv)
        return engines

    def _router(self, spec: Spec, choice: Choice, routers: int, seed: str) -> RouterProcess:
        now = asyncio.get_running_loop().time
        board = TelemetryBoard(clock=now)
        names = {Role.PREFILL: choice.prefill, Role.DECODE: choice.decode}
        pools = {
            (role, name): SimPool(
                engines, POLICIES[names[role]].make(), board, random.Random(f"{role} {name} {seed}"), routers
            )
            for (role, name), engines in self.engines.items()
        }
        routes = {
            model: Route(pools[Role.PREFILL, entry.prefill], pools[Role.DECODE, entry.decode])
            for model, entry in spec.models.items()
        }
        self._report(board)
        admission = Admission(spec, _BoardCapacity(board, pools), now, routers) if choice.admission else None
        door: Door = admission or OpenDoor()
        return RouterProcess(board, Pipeline(routes, door, Accounts(spec, now), clock=now), admission)

    def _kv_changed(self, replica: str, added: Sequence[int], removed: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        for router in self.routers:
            loop.call_later(CALL_S, router.board.kv_changed, replica, added, removed)

    def _report(self, board: TelemetryBoard) -> None:
        for engines in self.engines.values():
            for engine in engines.values():
                board.observe(engine.load())

    async def beat(self) -> None:
        """Every replica tells every router, again and again, until cancelled."""
        while True:
            await asyncio.sleep(BEAT_S)
            for router in self.routers:
                self._report(router.board)
                if router.admission is not None:
                    router.admission.pump()

    @property
    def preempted(self) -> int:
        """Requests that a decode replica had to put back."""
        return sum(engine.preempted for engines in self.engines.values() for engine in engines.values())
