"""Replicas on one host share its cores: without GPUs, whoever computes slows the others down."""

from collections.abc import Callable


class Host:
    """So many cores for so many engines that need one core each while they compute.

    A replica on its own GPU needs none of this; it is what a simulation of CPU engines has to know.
    """

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self._busy = 0
        self._others: list[Callable[[], None]] = []

    def joined(self, on_change: Callable[[], None]) -> None:
        """An engine is on this host; `on_change` tells it that its pace may be another one."""
        self._others.append(on_change)

    @property
    def slow(self) -> float:
        """What everything takes longer by."""
        return max(1.0, self._busy / self._cores)

    def changed(self, busy: int) -> None:
        """So many engines more (or fewer, below 0) compute."""
        before = self.slow
        self._busy += busy
        if self.slow != before:
            for on_change in self._others:
                on_change()
