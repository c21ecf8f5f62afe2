"""Routers that exchange what they know of models end with the same, in whatever order they talk."""

import itertools

import pytest

from heliostat.spec import Model
from heliostat.wire import Adapter, Role
from router.catalog import Catalog, ServedAdapter, ServedModel, Snapshot


def model(decode: str = "base", digest: str = "") -> ServedModel:
    adapter = ServedAdapter("/adapters/x", Adapter(digest, "/adapters/x")) if digest else None
    return ServedModel(Model(prefill="home", decode=decode), decode_adapter=adapter)


class Clock:
    """Stands still, unless a test moves it."""

    now_ns = 1000

    def __call__(self) -> int:
        return self.now_ns


def catalogs(*names: str) -> list[Catalog]:
    return [Catalog(name, Clock()) for name in names]


def merged(*snapshots: Snapshot) -> Snapshot:
    reader = Catalog("reader", Clock())
    for snapshot in snapshots:
        reader.merge(snapshot)
    return reader.snapshot()


def three_views() -> list[Snapshot]:
    """Of routers that changed the same names without hearing of each other, in one moment of the clock."""
    a, b, c = catalogs("a", "b", "c")
    a.add("math", model("base"))
    b.add("math", model("narrow"))
    b.add("code", model())
    b.remove("code")
    c.add("code", model())
    c.remove("home")
    return [a.snapshot(), b.snapshot(), c.snapshot()]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_exchanges_does_not_matter(order: tuple[int, ...]) -> None:
    views = three_views()
    together = merged(*(views[index] for index in order))
    assert together == merged(*views)
    assert set(together) == {"math", "code", "home"}


def test_an_exchange_may_be_repeated_and_grouped() -> None:
    a, b, c = three_views()
    assert merged(a, a, b, a, c, c) == merged(a, b, c)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


def test_only_what_is_new_is_reported() -> None:
    a, b = catalogs("a", "b")
    a.add("math", model())
    assert b.merge(a.snapshot()) == {"math": model()}
    assert b.merge(a.snapshot()) == {}
    a.remove("math")
    assert b.merge(a.snapshot()) == {"math": None}
    a.remove("math")
    assert b.merge(a.snapshot()) == {}, "gone is gone"


def test_a_removal_is_not_undone_by_an_older_add() -> None:
    a, b = catalogs("a", "b")
    a.add("math", model())
    before = a.snapshot()
    b.merge(before)
    b.remove("math")
    assert b.merge(before) == {}
    assert b.served("math") is None
    assert a.merge(b.snapshot()) == {"math": None}


def test_whoever_knows_of_a_change_can_undo_it_although_its_clock_is_behind() -> None:
    ahead, behind = Clock(), Clock()
    ahead.now_ns = 10**9
    a, b = Catalog("a", ahead), Catalog("b", behind)
    a.add("math", model())
    b.merge(a.snapshot())
    b.remove("math")
    assert a.merge(b.snapshot()) == {"math": None}
    b.add("math", model("narrow"))
    a.merge(b.snapshot())
    assert a.served("math") == model("narrow")


def test_a_snapshot_does_not_change_later() -> None:
    (catalog,) = catalogs("a")
    catalog.add("math", model())
    before = catalog.snapshot()
    catalog.remove("math")
    assert before["math"].served == model()


def test_an_adapter_is_used_in_its_own_pool_only() -> None:
    served = model("base", digest="d1")
    assert served.uses(Role.DECODE, "base", "d1")
    assert not served.uses(Role.DECODE, "narrow", "d1")
    assert not served.uses(Role.DECODE, "base", "d2")
    assert not served.uses(Role.PREFILL, "home", "d1")
