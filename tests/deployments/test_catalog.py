"""A model is there wholly or not at all, on every router, and its adapters on the replicas with it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployments.catalog import CatalogDesk
from deployments.catalog_live import LiveModels, root
from heliostat.errors import (
    InvalidRequestError,
    ModelChangesOffError,
    ModelExistsError,
    UnknownModelError,
)
from heliostat.spec import Lora, Model, Pool, Router, Spec
from heliostat.wire import Adapter, Role
from router.accounts import Accounts
from router.admission import Admission, PoolFigures
from router.catalog import Catalog, ServedAdapter, ServedModel, Snapshot
from router.frontend.models import NewModel

WEIGHTS = str(Path(__file__).parents[2] / "examples" / "quickstart" / "weights" / "base")
Made = Callable[..., Path]


def spec_of(*, model_changes: bool = True) -> Spec:
    pool = Pool(weights=WEIGHTS, lora=Lora())
    return Spec.model_validate(
        {
            "family": {"base": WEIGHTS},
            "router": Router(model_changes=model_changes),
            "prefill": {"home": pool},
            "decode": {"base": pool},
            "models": {"home": {"prefill": "home", "decode": "base"}},
        }
    )


class Capacity:
    def slots(self, role: Role, pool: str) -> PoolFigures:
        return PoolFigures()


@dataclass
class Replicas:
    """What the replicas of each pool hold; `refuse` names pools in which an adapter does not load."""

    held: set[tuple[Role, str, str]] = field(default_factory=set)
    refuse: set[Role] = field(default_factory=set)
    meanwhile: Callable[[], None] = lambda: None

    async def load(self, role: Role, pool: str, adapter: Adapter) -> None:
        self.meanwhile()
        if role in self.refuse:
            raise InvalidRequestError(f"pool {role}.{pool}: {role}-{pool}#1: too large a rank")
        self.held.add((role, pool, adapter.digest))

    async def drop(self, role: Role, pool: str, adapter: Adapter) -> None:
        self.held.discard((role, pool, adapter.digest))


@dataclass
class Peers:
    """Desks that hear each other; `down` says who does not, for now."""

    desks: list[CatalogDesk] = field(default_factory=list)
    down: set[int] = field(default_factory=set)

    def up(self) -> list[CatalogDesk]:
        return [desk for number, desk in enumerate(self.desks) if number not in self.down]

    async def adopt(self, snapshot: Snapshot) -> None:
        for desk in self.up():
            desk.adopt(snapshot)

    async def snapshots(self) -> list[Snapshot]:
        return [desk.snapshot() for desk in self.up()]


class Cluster:
    """Two routers in front of the same replicas."""

    def __init__(self, *, model_changes: bool = True) -> None:
        self.spec = spec_of(model_changes=model_changes)
        self.replicas, self.peers = Replicas(), Peers()
        self.lives: list[LiveModels] = []
        self.routes: list[dict[str, ServedModel]] = []
        for name in "ab":
            self.start(name)

    def start(self, name: str) -> CatalogDesk:
        served = {key: ServedModel(model) for key, model in self.spec.models.items()}
        admission, accounts = Admission(self.spec, Capacity(), lambda: 1.0), Accounts(self.spec)
        routes = dict(served)
        live = LiveModels(
            served, routes, dict(served), (admission, accounts), lambda model: model, lambda _, model: model
        )
        desk = CatalogDesk(self.spec, Catalog(name, lambda: 1), live, self.replicas, self.peers)
        self.lives.append(live)
        self.routes.append(routes)
        self.peers.desks.append(desk)
        return desk

    @property
    def desk(self) -> CatalogDesk:
        return self.peers.desks[0]

    def names(self) -> list[set[str]]:
        """What each router serves."""
        return [set(routes) for routes in self.routes]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def new(name: str = "late", adapter: Path | None = None, **more: str) -> NewModel:
    decode_adapter = str(adapter) if adapter else None
    body = {"name": name, "prefill": "home", "decode": "base", "decode_adapter": decode_adapter}
    return NewModel.model_validate(body | more)


async def test_an_added_model_is_on_every_router_and_its_adapter_on_the_replicas(
    cluster: Cluster, lora: Made
) -> None:
    listing = await cluster.desk.add(new(adapter=lora("x")))
    assert cluster.names() == [{"home", "late"}] * 2
    assert {(role, pool) for role, pool, _ in cluster.replicas.held} == {(Role.DECODE, "base")}
    assert (listing.origin, listing.decode_adapter) == ("added", str(lora("x")))
    assert [(each.name, each.origin) for each in cluster.peers.desks[1].listings()] == [
        ("home", "spec"),
        ("late", "added"),
    ]


async def test_a_router_that_starts_later_learns_what_came_and_went(cluster: Cluster) -> None:
    await cluster.desk.add(new())
    await cluster.desk.remove("home")
    restarted = cluster.start("c")
    await restarted.exchange()
    assert cluster.names() == [{"late"}] * 3


async def test_a_router_that_missed_a_change_takes_it_up_at_the_next_exchange(cluster: Cluster) -> None:
    cluster.peers.down = {1}
    await cluster.desk.add(new())
    assert cluster.names() == [{"home", "late"}, {"home"}]
    cluster.peers.down = set()
    await cluster.peers.desks[1].exchange()
    assert cluster.names() == [{"home", "late"}] * 2


async def test_an_adapter_leaves_with_the_last_model_that_uses_it(cluster: Cluster, lora: Made) -> None:
    await cluster.desk.add(new("one", lora("x")))
    await cluster.desk.add(new("two", lora("x")))
    await cluster.desk.remove("one")
    assert len(cluster.replicas.held) == 1
    await cluster.peers.desks[1].remove("two")
    assert cluster.replicas.held == set()
    assert cluster.names() == [{"home"}] * 2


async def test_an_adapter_that_does_not_load_changes_nothing(cluster: Cluster, lora: Made) -> None:
    cluster.replicas.refuse = {Role.DECODE}
    both = new(adapter=lora("x"), prefill_adapter=str(lora("y", value=2)))
    with pytest.raises(InvalidRequestError, match="decode-base#1: too large a rank"):
        await cluster.desk.add(both)
    assert cluster.names() == [{"home"}] * 2
    assert cluster.replicas.held == set(), "the prefill pool gave up what it had loaded"
    assert cluster.desk.snapshot() == {}


async def test_a_name_that_another_router_was_faster_to_take_is_refused(cluster: Cluster, lora: Made) -> None:
    faster = Catalog("z", lambda: 5)
    faster.add("late", ServedModel(Model(prefill="home", decode="base")))
    cluster.replicas.meanwhile = lambda: cluster.desk.adopt(faster.snapshot())
    with pytest.raises(ModelExistsError):
        await cluster.desk.add(new(adapter=lora("x")))
    assert cluster.replicas.held == set()
    (late,) = [each for each in cluster.desk.listings() if each.name == "late"]
    assert late.decode_adapter is None, "the faster one's model stays"


async def test_of_two_adds_of_a_name_at_one_router_one_is_refused(cluster: Cluster) -> None:
    added: list[Awaitable[object]] = [cluster.desk.add(new()), cluster.desk.add(new())]
    outcomes = await asyncio.gather(*added, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes][1] is ModelExistsError
    assert not isinstance(outcomes[0], Exception)


async def test_a_model_of_a_pool_that_the_spec_lacks_is_left_out(cluster: Cluster) -> None:
    other = Catalog("z", lambda: 5)
    other.add("home", ServedModel(Model(prefill="elsewhere", decode="base")))
    cluster.desk.adopt(other.snapshot())
    assert cluster.names()[0] == {"home"}
    assert cluster.desk.listings()[0].prefill == "home"


async def test_nothing_changes_unless_the_spec_says_so() -> None:
    fixed = Cluster(model_changes=False)
    for change in (fixed.desk.add(new()), fixed.desk.remove("home")):
        with pytest.raises(ModelChangesOffError, match="model_changes: true"):
            await change
    assert fixed.names() == [{"home"}] * 2


async def test_an_unknown_name_cannot_be_removed(cluster: Cluster) -> None:
    with pytest.raises(UnknownModelError, match="did you mean `home`"):
        await cluster.desk.remove("hom")


def test_the_root_of_a_model_names_its_adapters() -> None:
    model = Model(prefill="home", decode="base")
    adapter = ServedAdapter("spell", Adapter("d", "/spell"))
    assert root(ServedModel(model)) == "home + base"
    assert root(ServedModel(model, decode_adapter=adapter)) == "home + base:spell"


def test_a_model_that_another_replaces_is_taken_away_first() -> None:
    """Else what waits for a slot of its old pool would get one of the new pool."""

    class Follower:
        def __init__(self) -> None:
            self.told: list[str] = []

        def add(self, name: str, model: Model) -> None:
            self.told.append(f"+{name} {model.decode}")

        def remove(self, name: str) -> None:
            self.told.append(f"-{name}")

    follower = Follower()
    live = LiveModels({}, {}, {}, (follower,), lambda model: model, lambda _, model: model)
    for decode in ("one", "other"):
        live.put("late", ServedModel(Model(prefill="home", decode=decode)))
    assert follower.told == ["+late one", "-late", "+late other"]
    assert live.served["late"].model.decode == "other"
