"""Which models came and went since the routers started: what they tell each other, and how it is merged.

A spec's models are known to every router; the catalog holds only what was changed at run time. For each name
it has the newest change: a model, or that the name was removed. Routers exchange whole snapshots, in any
order and as often as they like, and end with the same one: a last-writer-wins map with tombstones (Shapiro
et al., "A comprehensive study of Convergent and Commutative Replicated Data Types", 2011, section 3.2.1).
Pure: no clock but the one it is given, no Ray, no I/O.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from heliostat.spec import Model
from heliostat.wire import Adapter, Role


class Stamp(NamedTuple):
    """When a change was made, and by which router; the larger one is the newer one."""

    time_ns: int
    router: str


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """An adapter as an operator names it (one of the pool's, a directory, a hub name), and as replicas do."""

    source: str
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model, and its adapters where it has some."""

    model: Model
    prefill_adapter: ServedAdapter | None = None
    decode_adapter: ServedAdapter | None = None

    def adapter(self, role: Role) -> ServedAdapter | None:
        """That of its module in that role."""
        return self.prefill_adapter if role is Role.PREFILL else self.decode_adapter

    def uses(self, role: Role, pool: str, digest: str) -> bool:
        """Whether it needs that adapter in that pool."""
        mine = self.adapter(role)
        return mine is not None and self.model.pool(role) == pool and mine.adapter.digest == digest


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest change of one name; `served` is None when it was removed."""

    stamp: Stamp
    served: ServedModel | None


Snapshot = Mapping[str, Entry]


class Peers(Protocol):
    """The other routers; this one may be among them, for to adopt what one knows changes nothing."""

    async def adopt(self, snapshot: Snapshot) -> None:
        """Tell every router that answers, and wait until each has taken it up."""

    async def snapshots(self) -> list[Snapshot]:
        """What every router that answers knows."""


class Catalog:
    """The changes that one router knows of."""

    def __init__(self, router: str, clock_ns: Callable[[], int]) -> None:
        self._router = router
        self._clock_ns = clock_ns
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, served: ServedModel) -> None:
        """The name stands for this model from now on."""
        self._entries[name] = Entry(self._stamp(name), served)

    def remove(self, name: str) -> None:
        """The name stands for nothing from now on."""
        self._entries[name] = Entry(self._stamp(name), None)

    def merge(self, snapshot: Snapshot) -> dict[str, ServedModel | None]:
        """Take up what is newer there; returns the names that changed, and what they stand for now."""
        newer = {
            name: entry
            for name, entry in snapshot.items()
            if name not in self._entries or entry.stamp > self._entries[name].stamp
        }
        changed = {
            name: entry.served
            for name, entry in newer.items()
            if name not in self._entries or self._entries[name].served != entry.served
        }
        self._entries.update(newer)
        return changed

    def snapshot(self) -> Snapshot:
        """A copy of everything it knows."""
        return dict(self._entries)

    def served(self, name: str) -> ServedModel | None:
        """What the name was made to stand for at run time; None: nothing, or only what the spec says."""
        entry = self._entries.get(name)
        return entry.served if entry else None

    def _stamp(self, name: str) -> Stamp:
        """Newer than anything known of the name, also when another router's clock runs ahead."""
        known = self._entries.get(name)
        return Stamp(max(self._clock_ns(), known.stamp.time_ns + 1 if known else 0), self._router)
