"""The adapters that one engine keeps in memory: loaded before use, the longest unused given up first.

An engine that finds at the moment of a step that an adapter cannot be loaded dies with all its requests
(vLLM 0.32: the worker loads in `set_active_loras`). So it never gets there: what a request needs is loaded by
a call of its own, stays while somebody uses it, and the engine's own limit is never reached.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from heliostat.wire import Adapter
from router.prefix_index import adapter_name


class AdapterLoader(Protocol):
    """How an engine takes an adapter in and lets it go; numbers are from 1 on, and never used twice."""

    async def load(self, adapter: Adapter, number: int) -> None:
        """Raises HeliostatError; the engine is then as it was before."""

    async def unload(self, number: int) -> None:
        """Of one that was loaded and is not in use."""


Changed = Callable[[list[int], list[int]], None]
"""Names of adapters (`adapter_name`) that are loaded now, and of those that are not any more."""


class AdapterShelf:
    """At most `kept` adapters; whoever finds them all in use waits for one."""

    def __init__(self, loader: AdapterLoader, kept: int, on_change: Changed) -> None:
        self._loader = loader
        self._kept = kept
        self._on_change = on_change
        self._numbers: OrderedDict[Adapter, int] = OrderedDict()
        self._last = 0
        self._users: Counter[Adapter] = Counter()
        self._changing = asyncio.Lock()
        self._loading: dict[Adapter, asyncio.Task[None]] = {}
        self._left = asyncio.Event()

    @property
    def loaded(self) -> tuple[Adapter, ...]:
        """The longest unused first."""
        return tuple(self._numbers)

    @asynccontextmanager
    async def use(self, adapter: Adapter) -> AsyncGenerator[int, None]:
        """The adapter's number in the engine, for as long as it is used. Raises HeliostatError."""
        while adapter not in self._numbers:
            # A user who leaves must not leave behind what the engine holds and the shelf does not know.
            loading = self._loading.get(adapter) or asyncio.create_task(self._load(adapter))
            self._loading[adapter] = loading
            loading.add_done_callback(lambda _: self._loading.pop(adapter, None))
            await asyncio.shield(loading)
        self._numbers.move_to_end(adapter)
        self._users[adapter] += 1
        try:
            yield self._numbers[adapter]
        finally:
            self._users[adapter] -= 1
            if not self._users[adapter]:
                del self._users[adapter]
                self._left.set()

    async def drop(self, digest: str) -> None:
        """Give an adapter up, if it is here and nobody uses it."""
        async with self._changing:
            for adapter in self.loaded:
                if adapter.digest == digest and not self._users[adapter]:
                    await self._unload(adapter)

    async def _load(self, adapter: Adapter) -> None:
        async with self._changing:
            while len(self._numbers) >= self._kept:
                idle = next((each for each in self._numbers if not self._users[each]), None)
                if idle is not None:
                    await self._unload(idle)
                    continue
                self._left.clear()
                await self._left.wait()
            self._last += 1
            await self._loader.load(adapter, self._last)
            self._numbers[adapter] = self._last
            self._on_change([adapter_name(adapter.digest)], [])

    async def _unload(self, adapter: Adapter) -> None:
        number = self._numbers.pop(adapter)
        self._on_change([], [adapter_name(adapter.digest)])
        await self._loader.unload(number)
