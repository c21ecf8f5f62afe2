"""The shelf of adapters: never more than there is room for, and none goes while it is used."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from deployments.adapter_shelf import AdapterShelf
from heliostat.errors import HeliostatError
from heliostat.wire import Adapter
from router.prefix_index import adapter_name

A, B, C, D = (Adapter(name, f"/adapters/{name}") for name in "abcd")
NAMES = {adapter_name(adapter.digest): adapter for adapter in (A, B, C, D)}


class FakeLoader:
    """An engine: takes no number twice and no more than it has room for, lets go only what it has."""

    def __init__(self, room: int) -> None:
        self.inside: dict[int, Adapter] = {}
        self.loads: Counter[Adapter] = Counter()
        self.broken: set[Adapter] = set()
        self.began, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()
        self._room = room
        self._last = 0

    async def load(self, adapter: Adapter, number: int) -> None:
        assert number > self._last, "numbers are never used twice"
        assert len(self.inside) < self._room
        self._last = number
        self.loads[adapter] += 1
        self.began.set()
        await self.open.wait()
        if adapter in self.broken:
            raise HeliostatError(f"adapter {adapter.path}: broken")
        self.inside[number] = adapter

    async def unload(self, number: int) -> None:
        del self.inside[number]


class Place:
    """A shelf over a fake engine, and what its listener believes."""

    def __init__(self, kept: int) -> None:
        self.loader = FakeLoader(kept)
        self.told: list[str] = []
        self.shelf = AdapterShelf(self.loader, kept, self._changed)

    def _changed(self, added: list[int], removed: list[int]) -> None:
        self.told += [f"+{NAMES[name].digest}" for name in added]
        self.told += [f"-{NAMES[name].digest}" for name in removed]

    async def used(self, *adapters: Adapter) -> None:
        """One after the other, each let go at once."""
        for adapter in adapters:
            async with self.shelf.use(adapter) as number:
                assert self.loader.inside[number] == adapter

    def check(self, *loaded: Adapter) -> None:
        """The shelf, its engine and its listener agree."""
        assert self.shelf.loaded == loaded
        assert Counter(self.loader.inside.values()) == Counter(loaded)
        believed: list[str] = []
        for change in self.told:
            believed.append(change[1:]) if change[0] == "+" else believed.remove(change[1:])
        assert sorted(believed) == sorted(adapter.digest for adapter in loaded)


async def turns() -> None:
    """Lets everybody who can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_adapter_is_loaded_once_for_all_who_ask_at_the_same_time() -> None:
    place = Place(2)
    place.loader.open.clear()
    users = [asyncio.create_task(place.used(A)) for _ in range(5)]
    await turns()
    assert not any(user.done() for user in users), "nobody uses it before it is there"
    place.loader.open.set()
    await asyncio.gather(*users)
    assert place.loader.loads == {A: 1}
    place.check(A)


async def test_the_longest_unused_goes_first() -> None:
    place = Place(2)
    await place.used(A, B, A, C)
    place.check(A, C)
    assert place.told == ["+a", "+b", "-b", "+c"]


async def test_one_that_comes_back_has_a_new_number() -> None:
    place = Place(1)
    async with place.shelf.use(A) as first:
        pass
    await place.used(B)
    async with place.shelf.use(A) as second:
        assert second > first
    assert place.loader.loads == {A: 2, B: 1}


async def test_one_in_use_stays_however_long_it_is_unasked() -> None:
    place = Place(2)
    async with place.shelf.use(A) as number:
        await place.used(B, C, D, B)
        assert place.loader.inside[number] == A
    place.check(A, B)
    await place.used(C)
    place.check(B, C)


async def test_who_finds_all_in_use_waits_until_the_last_user_of_one_has_left() -> None:
    place = Place(2)
    async with AsyncExitStack() as stays, AsyncExitStack() as leaves:
        await stays.enter_async_context(place.shelf.use(A))
        await stays.enter_async_context(place.shelf.use(B))
        await leaves.enter_async_context(place.shelf.use(B))
        waiting = asyncio.create_task(place.used(C))
        await turns()
        await leaves.aclose()
        await turns()
        assert not waiting.done(), "one of two users of B has left"
        await place.used(A)  # what is there can be used meanwhile
        place.check(B, A)
    await waiting
    assert place.loader.loads == {A: 1, B: 1, C: 1}
    assert C in place.shelf.loaded and len(place.shelf.loaded) == 2


async def test_who_gives_up_waiting_leaves_the_way_free() -> None:
    place = Place(1)
    async with place.shelf.use(A):
        waiting = asyncio.create_task(place.used(B))
        await turns()
        waiting.cancel()
        await asyncio.wait([waiting])
        place.check(A)
    await place.used(C)
    place.check(C)


async def test_a_load_that_fails_leaves_no_trace() -> None:
    place = Place(2)
    place.loader.broken.add(B)
    await place.used(A)
    with pytest.raises(HeliostatError, match="adapter /adapters/b: broken"):
        await place.used(B)
    place.check(A)
    place.loader.broken.clear()
    await place.used(B)
    place.check(A, B)


async def test_everybody_who_waits_for_a_load_that_fails_tries_it_and_hears_of_it() -> None:
    place = Place(2)
    place.loader.broken.add(A)
    outcomes = await asyncio.gather(*(place.used(A) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [HeliostatError] * 3
    place.check()


async def test_a_user_that_fails_lets_its_adapter_go() -> None:
    place = Place(1)
    with pytest.raises(ValueError, match="the answer"):
        async with place.shelf.use(A):
            raise ValueError("the answer")
    await place.used(B)
    place.check(B)


async def test_what_is_dropped_goes_unless_it_is_used() -> None:
    place = Place(3)
    await place.used(A, B)
    async with place.shelf.use(A):
        await place.shelf.drop(A.digest)
        await place.shelf.drop(B.digest)
        await place.shelf.drop(C.digest)
        place.check(A)
    await place.shelf.drop(A.digest)
    place.check()
    await place.used(A)
    place.check(A)


async def test_many_users_of_many_adapters_never_exceed_the_room() -> None:
    place = Place(2)

    async def uses(adapter: Adapter) -> None:
        async with place.shelf.use(adapter) as number:
            for _ in range(3):
                await asyncio.sleep(0)
                assert place.loader.inside[number] == adapter

    await asyncio.gather(*(uses(adapter) for _ in range(20) for adapter in (A, B, C, D)))
    assert place.loader.loads.keys() == {A, B, C, D}
    place.check(*place.shelf.loaded)


async def test_a_user_who_leaves_while_it_loads_leaves_nothing_that_the_shelf_does_not_know() -> None:
    place = Place(1)
    place.loader.open.clear()
    impatient = asyncio.create_task(place.used(A))
    await place.loader.began.wait()
    impatient.cancel()
    await asyncio.wait([impatient])
    place.loader.open.set()
    await place.used(B)
    assert (list(place.loader.inside.values()), place.shelf.loaded) == ([B], (B,))
    assert place.told == ["+a", "-a", "+b"]
