"""The pipeline while pools roll: who is asked, what is released, what is never continued.

Over fake pools whose tokens follow from both modules, as a `sim` engine's do.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from heliostat.errors import HandoffFailedError, PoolUnavailableError, VersionsGoneError
from heliostat.wire import (
    DecodeRequest,
    Load,
    PrefillRequest,
    PrefillResult,
    Ticket,
    TokenDelta,
    TokenFrame,
    Version,
)
from kvtransfer.fit import version_misfit
from router.match import VersionWait
from router.pairing import Side, VersionPairing
from router.pipeline import GenerateRequest, Pipeline
from router.roster import Roster
from router.route import Route
from router.trace import Trace

P1, D1 = Version("p1", "p1", "p1", partners=("d1",)), Version("d1", "d1", "d1", partners=("p1",))
P2, D2 = Version("p2", "p2", "p2", partners=("d2",)), Version("d2", "d2", "d2", partners=("p2",))
NUM_TOKENS = 4


def token(writer: Version, reader: Version, position: int) -> int:
    return hash((writer.weights, reader.weights, position)) % 1000


def answer(writer: Version, reader: Version) -> list[int]:
    return [token(writer, reader, position) for position in range(NUM_TOKENS)]


@dataclass
class Cluster:
    """Both pools, by replica. What `happens` before a leg, by its number, changes them."""

    prefill: dict[str, Version]
    decode: dict[str, Version]
    happens: dict[str, Callable[["Cluster"], None]] = field(default_factory=dict)
    dies_after: dict[str, int] = field(default_factory=dict)
    legs: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    draw: float = 0.0

    def __post_init__(self) -> None:
        self.roster = Roster()
        self._seen: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.look()

    def look(self) -> None:
        """The next beat of the router."""
        for name, version in (self.prefill | self.decode).items():
            self.roster.observe(name, version)
        self._seen = (tuple(self.prefill), tuple(self.decode))

    def begin(self, leg: str) -> None:
        self.legs.append(leg)
        if change := self.happens.pop(leg, None):
            change(self)
            self.look()

    def names(self, side: int) -> tuple[str, ...]:
        return self._seen[side]

    def pipeline(self, wait: VersionWait | None = None) -> Pipeline:
        pairing = VersionPairing(
            self.roster,
            Side(lambda: self.names(0), "p1"),
            Side(lambda: self.names(1), "d1"),
            lambda: self.draw,
        )
        route = Route(FakePrefillPool(self), FakeDecodePool(self), pairing=pairing)
        return Pipeline({"m": route}, OpenDoor(), wait=wait or VersionWait(0.0, 0.0))


def chosen(pool: dict[str, Version], versions: frozenset[str] | None) -> str:
    """As the chooser: the first of the wanted versions."""
    return next(name for name, version in pool.items() if versions is None or version.id in versions)


class FakePrefillPool:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        cluster = self._cluster
        name = chosen(cluster.prefill, request.versions)
        writer = cluster.prefill[name]
        number = sum(leg.startswith("prefill") for leg in cluster.legs) + 1
        ticket = Ticket(f"t{number}", "shm", "", "d", "p", 3, 1, 64, name, 0.0, writer=writer)
        cluster.begin(f"prefill {number}")
        return PrefillResult(ticket, Load(name, 0, 0, 0, 0.0, 1), 0, 0.0)

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield await self.prefill(request)

    async def release(self, ticket: Ticket) -> None:
        self._cluster.released.append(ticket.ticket_id)


class FakeDecodePool:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        return 0

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        cluster = self._cluster
        name = chosen(cluster.decode, request.versions)
        reader = cluster.decode[name]
        writer = request.ticket.writer if request.ticket else reader
        assert writer is not None
        assert version_misfit(writer, reader) is None, "a mix would give wrong tokens and no error"
        cluster.begin(f"decode {sum(leg.startswith('decode') for leg in cluster.legs) + 1}")
        for position in range(len(request.generated), NUM_TOKENS):
            if cluster.dies_after.get(name) == position:
                del cluster.decode[name]
                cluster.begin("death")
                cluster.look()
                raise HandoffFailedError(f"{name} died", name, True)
            last = position == NUM_TOKENS - 1
            delta = TokenDelta(0, (token(writer, reader, position),), None, "length" if last else None)
            yield TokenFrame((delta,), last, Load(name, 0, 0, 0, 0.0, 1), None)


class OpenDoor:
    """Admits everybody."""

    @asynccontextmanager
    async def slot(self, *request: object) -> AsyncGenerator["OpenDoor", None]:
        yield self

    def served(self, tokens: int) -> None:
        """Nobody counts."""

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        return max_tokens


async def tokens(pipeline: Pipeline) -> list[int]:
    request = GenerateRequest("r", "m", (1, 2, 3, 4), b"", Trace(), max_tokens=NUM_TOKENS)
    return [each async for frame in pipeline.generate(request) for each in frame.deltas[0].token_ids]


def gone(pool: str, name: str) -> Callable[[Cluster], None]:
    return lambda cluster: getattr(cluster, pool).pop(name)


@pytest.mark.parametrize(("draw", "pair"), [(0.0, (P1, D1)), (0.9, (P2, D2))])
async def test_both_legs_of_a_request_meet_versions_of_one_deploy(
    draw: float, pair: tuple[Version, Version]
) -> None:
    cluster = Cluster({"p1": P1, "p2": P2}, {"d1": D1, "d2": D2}, draw=draw)
    assert await tokens(cluster.pipeline()) == answer(*pair)
    assert cluster.released == []


async def test_a_ticket_that_outlives_its_readers_is_released_and_made_again() -> None:
    """Decode rolls first: the last old decode replica goes while the old module writes the prompt's KV."""
    cluster = Cluster({"p1": P1, "p2": P2}, {"d1": D1, "d2": D2}, happens={"prefill 1": gone("decode", "d1")})
    assert await tokens(cluster.pipeline()) == answer(P2, D2)
    assert cluster.legs == ["prefill 1", "prefill 2", "decode 1"]
    assert cluster.released == ["t1"]


async def test_a_ticket_outlives_its_writer() -> None:
    """Prefill rolls first: the KV is still there."""
    cluster = Cluster(
        {"p1": P1, "p2": P2}, {"d1": D1, "d2": D2}, happens={"prefill 1": gone("prefill", "p1")}
    )
    assert await tokens(cluster.pipeline()) == answer(P1, D1)


async def test_a_stream_that_is_lost_in_a_roll_goes_on_with_the_versions_that_began_it() -> None:
    cluster = Cluster({"p2": P2, "p1": P1}, {"d1": D1, "d2": D2, "d1b": D1}, dies_after={"d1": 2}, draw=0.5)
    assert await tokens(cluster.pipeline()) == answer(P1, D1)
    assert cluster.legs == ["prefill 1", "decode 1", "death", "prefill 2", "decode 2"]


@pytest.mark.parametrize("left", [{"p2": P2, "p1": P1}, {"p2": P2}])
async def test_a_stream_whose_version_is_gone_ends_with_one_error(left: dict[str, Version]) -> None:
    """Neither a new decode module nor a new prefill module goes on where the old ones stopped."""
    cluster = Cluster({"p1": P1}, {"d1": D1, "d2": D2}, dies_after={"d1": 2})
    cluster.happens["decode 1"] = lambda changed: setattr(changed, "prefill", left)
    seen: list[int] = []
    request = GenerateRequest("r", "m", (1, 2, 3, 4), b"", Trace(), max_tokens=NUM_TOKENS)
    with pytest.raises(VersionsGoneError, match="the answer cannot be continued: no replicas are left"):
        async for frame in cluster.pipeline().generate(request):
            seen.extend(frame.deltas[0].token_ids)
    assert seen == answer(P1, D1)[:2]
    assert cluster.legs == ["prefill 1", "decode 1", "death"]


async def test_before_its_first_token_a_request_may_begin_anew_with_the_new_versions() -> None:
    cluster = Cluster({"p1": P1, "p2": P2}, {"d1": D1, "d2": D2}, dies_after={"d1": 0})
    assert await tokens(cluster.pipeline()) == answer(P2, D2)
    assert cluster.released == ["t1"]


class LateCluster(Cluster):
    """The new decode replica is seen at the third look."""

    looks = 0

    def names(self, side: int) -> tuple[str, ...]:
        self.looks += 1
        if self.looks == 3:
            self.decode["d2"] = D2
            self.look()
        return super().names(side)


async def test_a_request_waits_for_a_pair_while_neither_side_is_complete() -> None:
    """Prefill is through, decode has not begun."""
    cluster = LateCluster({"p2": P2}, {"d1": D1})
    assert await tokens(cluster.pipeline(VersionWait(60.0, 0.0))) == answer(P2, D2)
    assert cluster.looks >= 3


async def test_a_request_that_waits_in_vain_is_told_why() -> None:
    cluster = Cluster({"p2": P2}, {"d1": D1})
    with pytest.raises(
        PoolUnavailableError, match=r"no spec has deployed p2 \(weights p2\) together with d1"
    ):
        await tokens(cluster.pipeline())
    assert cluster.legs == []


async def test_two_prefill_modules_of_one_decode_module_serve_side_by_side() -> None:
    """SUN: new prefill weights, trained for the decode module that stays."""
    new = Version("p2", "p2", "p2", method="sun", partner="d1")
    cluster = Cluster({"p1": P1, "p2": new}, {"d1": D1})
    pipeline = cluster.pipeline()
    assert await tokens(pipeline) == answer(P1, D1)
    cluster.draw = 0.9
    assert await tokens(pipeline) == answer(new, D1)
