"""Both pools of a model roll under load, in virtual time, in every order, with deaths.

Board, chooser, pairing, pipeline, identities and `sim` engines are production's; Serve's part is played by
`FakePools`: it replaces replicas one by one, and a router sees that at its next beat only.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from deployments.engine import EngineConfig
from deployments.identity import Identity
from deployments.sim_engine import SimEngine
from deployments.sim_stream import SimSampling
from deployments.sim_tokens import expected_tokens
from heliostat.errors import HeliostatError, LegFailedError, PoolUnavailableError, VersionsGoneError
from heliostat.spec import Family, Pool, SimTiming, Transfer
from heliostat.wire import DecodeRequest, PrefillRequest, PrefillResult, Role, Ticket, TokenFrame, Version
from router.choice import Chooser
from router.match import VersionWait
from router.pairing import Side, VersionPairing
from router.pipeline import GenerateRequest, Pipeline
from router.policy import DEFAULTS, POLICIES
from router.route import Route
from router.telemetry import TelemetryBoard
from router.trace import Trace
from simulator.virtual_time import run

REPLICAS = 3
BEAT_S = 1.0
START_S = 8.0
LOOK_S = 0.25
SHORT, LONG = 10, 200


def version(name: str, **fields: str) -> Version:
    return replace(Version(f"id-{name}", f"weights-{name}", name, f"kv-{name}", "engine=sim"), **fields)


OLD = {Role.PREFILL: version("p1"), Role.DECODE: version("d1")}
NEW = {Role.PREFILL: version("p2"), Role.DECODE: version("d2")}
SUN = {Role.PREFILL: version("p2", method="sun", partner="weights-d1"), Role.DECODE: OLD[Role.DECODE]}
QSUN = {Role.PREFILL: version("p2", method="qsun", partner="weights-d2"), Role.DECODE: version("d2")}
Deploy = dict[Role, Version]


class Replica:
    """A replica as `deployments.replica` makes it, without an actor around it."""

    def __init__(self, name: str, role: Role, version: Version) -> None:
        pool = Pool(weights=version.source, engine="sim", sim=SimTiming(step_ms=50), max_running=64)
        config = EngineConfig(
            role, "m", pool, Family(base="b"), Transfer(), Path(), version.domain, name, name, version
        )
        self.identity = Identity(name, version)
        self.version = version
        self.engine = SimEngine(config, clock=lambda: asyncio.get_running_loop().time())


class FakePools:
    """Serve: replicas that run, by pool. Those that leave finish what they have."""

    def __init__(self, deploy: Deploy) -> None:
        self._made = 0
        self.leaving: tuple[Replica, ...] = ()
        self.running: dict[Role, tuple[Replica, ...]] = {}
        for role, each in deploy.items():
            self.running[role] = tuple(self.make(role, each) for _ in range(REPLICAS))

    def make(self, role: Role, version: Version) -> Replica:
        self._made += 1
        return Replica(f"{role}-m#{self._made}", role, version)

    async def roll(self, role: Role, version: Version, begins_s: float, start_s: float) -> None:
        """One after the other, and the old one leaves first."""
        await asyncio.sleep(begins_s)
        for replica in [each for each in self.running[role] if each.version != version]:
            self.running[role] = tuple(each for each in self.running[role] if each is not replica)
            self.leaving += (replica,) if role is Role.DECODE else ()
            await asyncio.sleep(start_s)
            self.running[role] = (*self.running[role], self.make(role, version))

    async def kill(self, at_s: float, draw: random.Random) -> None:
        """A decode replica dies; unless it was leaving, it comes again in the same version."""
        await asyncio.sleep(at_s)
        running = self.running[Role.DECODE]
        victim = draw.choice(running + self.leaving) if running else None
        if victim is None:
            return
        victim.engine.stop()
        if victim not in running:
            return  # it left and had streams yet
        self.running[Role.DECODE] = tuple(each for each in running if each is not victim)
        await asyncio.sleep(START_S)
        self.running[Role.DECODE] = (*self.running[Role.DECODE], self.make(Role.DECODE, victim.version))


class FakeRouter:
    """A router of one spec: what it saw at its last beat, and a pipeline over that."""

    def __init__(self, pools: FakePools, deploy: Deploy, seed: str) -> None:
        self.pools, self.deploy = pools, deploy
        self.draw = random.Random(seed)
        now = asyncio.get_running_loop().time
        self.board = TelemetryBoard(now)
        self.seen: dict[Role, tuple[str, ...]] = {Role.PREFILL: (), Role.DECODE: ()}
        self.beat()
        sides = [Side(lambda role=role: self.seen[role], deploy[role].source) for role in Role]
        pairing = VersionPairing(self.board.roster, sides[0], sides[1], self.draw.random)
        legs = {role: FakePool(self, role) for role in Role}
        route = Route(legs[Role.PREFILL], legs[Role.DECODE], pairing=pairing)
        self.pipeline = Pipeline({"m": route}, OpenDoor(), clock=now, wait=VersionWait(60.0, 0.1))

    def beat(self) -> None:
        """As `deployments.cluster_view` does it."""
        for role, running in self.pools.running.items():
            other = self.deploy[Role.DECODE if role is Role.PREFILL else Role.PREFILL]
            for replica in running:
                self.board.observe(replica.engine.load())
                told = replica.identity.told(self.deploy[role].source, (other.source,))
                self.board.roster.observe(told.replica, told.version)
            self.seen[role] = tuple(replica.identity.replica for replica in running)

    async def beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self.beat()


class FakePool:
    """As `deployments.pools` and `deployments.request_router`, without Ray."""

    def __init__(self, router: FakeRouter, role: Role) -> None:
        self._router, self._role = router, role
        self._names: tuple[str, ...] = ()
        self._chooser = Chooser(router.board, POLICIES[DEFAULTS[role]].make(), router.draw.random)

    async def _placed(self, leg: PrefillRequest | DecodeRequest) -> Replica:
        while True:
            running = self._router.pools.running[self._role]
            names = tuple(replica.identity.replica for replica in running)
            self._names = self._names if self._names == names else names
            if chosen := self._chooser.choose(self._names, leg.request_id, leg):
                return running[chosen[0]]
            seen = self._router.seen[self._role]
            if not seen:
                raise PoolUnavailableError("no replica")
            if leg.versions is not None and leg.versions.isdisjoint(self._router.board.roster.groups(seen)):
                raise LegFailedError("no replica of that version")
            await asyncio.sleep(LOOK_S)

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        replica = await self._placed(request)
        replica.identity.check_prefill(request)
        result = replica.identity.sign(await replica.engine.prefill(request), request)
        self._router.board.ended(request.request_id)
        return result

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield await self.prefill(request)

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        return 0

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        replica = await self._placed(request)
        replica.identity.check_decode(request)
        async with aclosing(replica.engine.decode(request)) as frames:
            async for frame in frames:
                yield frame
        self._router.board.ended(request.request_id)

    async def release(self, ticket: Ticket) -> None:
        for replica in self._router.pools.running[self._role]:
            await replica.engine.release(ticket.ticket_id)


class OpenDoor:
    """Admits everybody."""

    @asynccontextmanager
    async def slot(self, *request: object) -> AsyncGenerator["OpenDoor", None]:
        yield self

    def served(self, tokens: int) -> None:
        """Nobody counts."""

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        return max_tokens


@dataclass
class Answer:
    prompt: tuple[int, ...]
    num_tokens: int
    tokens: list[int]
    attempts: int = 0
    error: HeliostatError | None = None

    def is_of(self, deploy: Deploy) -> bool:
        """Whether these two modules gave it, as far as it goes."""
        domains = (deploy[role].domain for role in Role)
        whole = expected_tokens(self.prompt, *domains, self.num_tokens)
        return bool(self.tokens) and whole[: len(self.tokens)] == tuple(self.tokens)


async def ask(router: FakeRouter, name: str, num_tokens: int) -> Answer:
    prompt = tuple(router.draw.randrange(100) for _ in range(40))
    answer = Answer(prompt, num_tokens, [])
    sampling = msgspec.msgpack.encode(SimSampling(max_tokens=num_tokens))
    request = GenerateRequest(name, "m", prompt, sampling, Trace(), max_tokens=num_tokens)
    try:
        async for frame in router.pipeline.generate(request):
            for delta in frame.deltas:
                answer.tokens += delta.token_ids
    except HeliostatError as error:
        answer.error = error
    answer.attempts = request.trace.attempts
    return answer


Speeds = tuple[tuple[float, float], tuple[float, float], float]
"""When a pool begins to roll and what a new replica takes to start, in both roles; when the routers do."""

ORDERS: dict[str, Speeds] = {
    "together": ((5, START_S), (5, START_S), 5),
    "prefill first": ((5, START_S), (60, START_S), 5),
    "decode first": ((60, START_S), (5, START_S), 5),
    "prefill faster": ((5, 2), (5, 20), 5),
    "decode faster": ((5, 20), (5, 2), 5),
    "routers last": ((5, START_S), (5, START_S), 60),
    "routers first": ((30, START_S), (30, START_S), 5),
}


async def rolled(new: Deploy, speeds: Speeds, deaths: int, seed: int) -> list[Answer]:
    """What became of all requests, the last of them long after the roll."""
    draw = random.Random(seed)
    prefill, decode, routers_s = speeds
    pools = FakePools(OLD)
    routers = [FakeRouter(pools, OLD, f"old {seed} {number}") for number in range(2)]
    beats = [asyncio.create_task(router.beats()) for router in routers]
    changes = [
        asyncio.create_task(pools.roll(Role.PREFILL, new[Role.PREFILL], *prefill)),
        asyncio.create_task(pools.roll(Role.DECODE, new[Role.DECODE], *decode)),
        *(asyncio.create_task(pools.kill(draw.uniform(0, 60), draw)) for _ in range(deaths)),
    ]
    asked = []
    for number in range(240):
        await asyncio.sleep(0.5)
        if number == routers_s * 2:
            # Old routers go on with what they have.
            routers = [FakeRouter(pools, new, f"new {seed} {each}") for each in range(2)]
            beats += [asyncio.create_task(router.beats()) for router in routers]
        num_tokens = LONG if number % 10 == 0 else SHORT
        asked.append(asyncio.create_task(ask(draw.choice(routers), str(number), num_tokens)))
    answers = [await each for each in asked]
    await asyncio.gather(*changes)
    for beat in beats:
        beat.cancel()
    return answers


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("new", [NEW, QSUN], ids=["no cards", "a card"])
def test_every_answer_is_the_old_pair_s_or_the_new_one_s(new: Deploy, order: str) -> None:
    answers = run(rolled(new, ORDERS[order], deaths=0, seed=1))
    ended = Counter("old" if each.is_of(OLD) else "new" if each.is_of(new) else "a mix" for each in answers)
    assert [each.error for each in answers if each.error] == []
    assert all(len(each.tokens) == each.num_tokens for each in answers)
    assert set(ended) == {"old", "new"}


def test_new_prefill_weights_alone_are_never_waited_for() -> None:
    new = SUN
    answers = run(rolled(new, ORDERS["together"], deaths=0, seed=2))
    assert not any(each.error for each in answers)
    assert all(each.is_of(OLD) or each.is_of(new) for each in answers)


def test_new_decode_weights_beside_a_prefill_module_that_stays() -> None:
    new = {**NEW, Role.PREFILL: OLD[Role.PREFILL]}
    answers = run(rolled(new, ORDERS["together"], deaths=0, seed=3))
    assert not any(each.error for each in answers)
    assert {each.is_of(OLD) for each in answers} == {True, False}
    assert all(each.is_of(OLD) or each.is_of(new) for each in answers)


@pytest.mark.parametrize("order", ["together", "prefill faster", "decode faster"])
def test_a_stream_that_loses_its_replica_ends_as_it_began_or_with_one_error(order: str) -> None:
    ends: Counter[str] = Counter()
    for seed in range(5):
        for each in run(rolled(NEW, ORDERS[order], deaths=6, seed=seed)):
            assert not each.tokens or each.is_of(OLD) or each.is_of(NEW), each
            if each.error is None:
                assert len(each.tokens) == each.num_tokens
                ends["went on" if each.attempts > 1 else "undisturbed"] += 1
            else:
                assert isinstance(each.error, VersionsGoneError | PoolUnavailableError), each.error
                ends[type(each.error).__name__] += 1
    assert ends["went on"] > 0 and ends["VersionsGoneError"] > 0, ends
    assert ends["undisturbed"] > 0.9 * ends.total(), ends
