"""Which replica runs which version (`heliostat.wire.Version`), as replicas have said."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from heliostat.wire import Version

MAX_KNOWN = 8192
"""Replicas that are remembered: one that leaves its pool may still have streams of ours."""


@dataclass(frozen=True, slots=True)
class Group:
    """The replicas of one version in one pool. `version` has the partners of all of them."""

    version: Version
    replicas: tuple[str, ...]


class Roster:
    """`changes` grows with every news, so that whoever derives something from it knows when it is stale."""

    def __init__(self) -> None:
        self.changes = 0
        self._versions: OrderedDict[str, Version] = OrderedDict()

    def observe(self, replica: str, version: Version) -> None:
        """A replica said who it is. Of an empty version, which decides nothing, no note is taken."""
        if version.id and self._versions.get(replica) != version:
            self._versions[replica] = version
            self.changes += 1
            if len(self._versions) > MAX_KNOWN:
                self._versions.popitem(last=False)

    def version(self, replica: str) -> Version | None:
        """What it runs; None for one that has said nothing."""
        return self._versions.get(replica)

    def knows(self, replicas: Iterable[str]) -> bool:
        """Whether all of them have said who they are."""
        return all(replica in self._versions for replica in replicas)

    def groups(self, replicas: Iterable[str]) -> dict[str, Group]:
        """These replicas by version, in their order; who has said nothing is in none."""
        groups: dict[str, Group] = {}
        for replica in replicas:
            version = self._versions.get(replica)
            if version is None:
                continue
            group = groups.get(version.id)
            if group is None:
                groups[version.id] = Group(version, (replica,))
                continue
            known = group.version
            new = tuple(partner for partner in version.partners if partner not in known.partners)
            merged = replace(known, partners=known.partners + new) if new else known
            groups[version.id] = Group(merged, (*group.replicas, replica))
        return groups

    def select(self, replicas: tuple[str, ...], versions: frozenset[str] | None) -> tuple[int, ...] | None:
        """Which of them run one of the versions, by index; None: all of them, and nothing is left out.

        Whoever has said nothing yet is left out as soon as another one has: it may be of a new version.
        """
        known = [self._versions.get(replica) for replica in replicas]
        if versions is None:
            some = [index for index, version in enumerate(known) if version is not None]
            return None if len(some) in (0, len(known)) else tuple(some)
        chosen = [index for index, version in enumerate(known) if version and version.id in versions]
        return None if len(chosen) == len(known) else tuple(chosen)
