"""Replicas on one host share its cores: without GPUs, whoever computes slows the others down."""

import asyncio
from collections.abc import Callable


class Host:
    """So many cores for so many engines that need one core each while they compute.

    A core here is what one engine takes, so `cores` need not be a whole number. For each token that an engine
    makes, routers and proxies on the same host take `token_ms` of a core.

    A replica on its own GPU needs none of this; it is what a simulation of CPU engines has to know.
    """

    def __init__(self, cores: float, token_ms: float = 0.0) -> None:
        self._cores = cores
        self._token_ms = token_ms
        self._busy = 0.0
        self._others: list[Callable[[], None]] = []

    def joined(self, on_change: Callable[[], None]) -> None:
        """An engine is on this host; `on_change` tells it that its pace may be another one."""
        self._others.append(on_change)

    @property
    def slow(self) -> float:
        """What everything takes longer by."""
        return max(1.0, self._busy / self._cores)

    def share(self, requests: int, step_ms: float) -> float:
        """Cores that a computing engine keeps busy, with what its tokens cost elsewhere on the host."""
        return 1.0 + requests * self._token_ms / step_ms if step_ms > 0.0 else 1.0

    def changed(self, busy: float) -> None:
        """So many cores more (or fewer, below 0) are busy."""
        before = self.slow
        self._busy += busy
        if abs(self._busy) < 1e-9:  # what rounding leaves
            self._busy = 0.0
        if self.slow != before:
            for on_change in self._others:
                on_change()

    async def compute(self, ms: float) -> None:
        """Takes one core for so long, or longer where others are busy: at the pace of its beginning."""
        if ms <= 0.0:
            return
        self.changed(1.0)
        try:
            await asyncio.sleep(ms * self.slow / 1e3)
        finally:
            self.changed(-1.0)
