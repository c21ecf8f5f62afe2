"""The replicas of a simulated cluster as they come and go: started, serving, leaving, gone."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from heliostat.wire import PoolKey
from router.scaling import Reading, Served
from router.scaling.readings import read_pool
from simulator.engine.engine import Engine

Make = Callable[[PoolKey, int], Engine]
"""Makes the nth replica of a pool."""


@dataclass(slots=True, eq=False)
class _Held:
    """A replica's hold on its GPUs: from the moment it is asked for until it has nothing left to do."""

    asked_s: float
    engine: Engine | None = None
    timer: asyncio.TimerHandle | None = None
    gone_s: float | None = None


class Fleet:
    """`names` and `serving` are read by everybody and changed here alone.

    A pool's tuple of names is another object whenever its replicas are others (`TelemetryBoard`).
    """

    def __init__(self, sizes: Mapping[PoolKey, int], make: Make) -> None:
        self._loop = asyncio.get_running_loop()
        self._make = make
        self._made: Counter[PoolKey] = Counter()
        self._held: dict[PoolKey, list[_Held]] = {key: [] for key in sizes}
        self._leaving: dict[PoolKey, list[_Held]] = {key: [] for key in sizes}
        self._history: dict[PoolKey, list[_Held]] = {key: [] for key in sizes}
        self._waiting: dict[PoolKey, list[asyncio.Future[None]]] = {key: [] for key in sizes}
        self.serving: dict[PoolKey, list[Engine]] = {key: [] for key in sizes}
        self.names: dict[PoolKey, tuple[str, ...]] = dict.fromkeys(sizes, ())
        self.engines: dict[str, Engine] = {}
        """Every replica that ever served, by its name."""
        for key, size in sizes.items():
            for _ in range(size):
                self._start(key, 0.0)

    def size(self, key: PoolKey) -> int:
        """Replicas asked for, those that start included."""
        return len(self._held[key])

    def resize(self, key: PoolKey, size: int, start_s: float) -> None:
        """Start replicas, which serve `start_s` later; or let some go, those first that do not serve yet.

        Whoever leaves gets nothing new and finishes what it has.
        """
        held = self._held[key]
        while len(held) < size:
            self._start(key, start_s)
        while len(held) > size:
            self._leave(key, held.pop())
        self._named(key)

    def settle(self) -> None:
        """Those that leave are gone once they have nothing to do."""
        for leaving in self._leaving.values():
            for each in [each for each in leaving if each.engine is None or each.engine.idle]:
                each.gone_s = self._loop.time()
                leaving.remove(each)

    async def awake(self, key: PoolKey, within_s: float) -> bool:
        """Waits for the first replica of a pool at 0; False: there was none in time."""
        if self.names[key]:
            return True
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting[key].append(future)
        try:
            async with asyncio.timeout(within_s):
                await future
        except TimeoutError:
            return False
        finally:
            if future in self._waiting[key]:
                self._waiting[key].remove(future)
        return True

    def reading(self, key: PoolKey, outside: float, outside_tokens: float, let_in: float) -> Reading:
        """The pool now, for the decision, with what routers say of it."""
        served = sum((engine.served for engine in self.ever(key)), Served())
        loads = [engine.load() for engine in self.serving[key]]
        outside += len(self._waiting[key])
        return read_pool(self.size(key), loads, served, outside, outside_tokens, let_in)

    def ever(self, key: PoolKey) -> list[Engine]:
        """Every replica that ever served in the pool."""
        return [each.engine for each in self._history[key] if each.engine]

    def replica_s(self, key: PoolKey, until_s: float) -> float:
        """Seconds for which replicas have been held, start and drain included, until that moment."""
        ends = (until_s if each.gone_s is None else each.gone_s for each in self._history[key])
        return sum(
            max(0.0, min(end, until_s) - each.asked_s)
            for end, each in zip(ends, self._history[key], strict=True)
        )

    def _start(self, key: PoolKey, start_s: float) -> None:
        held = _Held(self._loop.time())
        self._held[key].append(held)
        self._history[key].append(held)
        if start_s:
            held.timer = self._loop.call_later(start_s, self._serve, key, held)
        else:
            self._serve(key, held)

    def _serve(self, key: PoolKey, held: _Held) -> None:
        held.timer = None
        held.engine = self._make(key, self._made[key])
        self._made[key] += 1
        self.engines[held.engine.name] = held.engine
        self.serving[key].append(held.engine)
        self._named(key)
        waiting, self._waiting[key] = self._waiting[key], []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _leave(self, key: PoolKey, held: _Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
        if held.engine is not None:
            self.serving[key].remove(held.engine)
        self._leaving[key].append(held)

    def _named(self, key: PoolKey) -> None:
        names = tuple(engine.name for engine in self.serving[key])
        if names != self.names[key]:
            self.names[key] = names
