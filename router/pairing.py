"""Which versions of a model's two modules may meet, while its pools roll independently of each other.

Every pool is replaced replica by replica, at its own speed, and routers at another. So for a while there are
old and new replicas on both sides, and only some pairs of them belong together (`kvtransfer.fit`). A request
is given one version on the prefill side for which a decode replica that fits is there; its ticket then says
which versions may read it; and an answer that has begun goes on with the two versions that began it.

Pure: no clock, no Ray, no I/O; `draw` gives numbers in [0, 1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from heliostat.wire import Adapter, Version
from kvtransfer.fit import adapter_version_misfit, same_answers, version_misfit, with_adapter
from router.roster import Group, Roster


@dataclass(frozen=True, slots=True)
class Choice:
    """Ids of the versions that may be asked, or why there is none: a `problem`, `passing` within a beat."""

    versions: frozenset[str] = frozenset()
    problem: str = ""
    passing: bool = False


NOBODY = Choice()
"""The pool has no replica, and one that comes up has to say who it is before it gets anything."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """The two versions that began an answer, as far as they are known."""

    writer: Version | None
    reader: Version | None

    def writes(self, version: Version) -> bool:
        """Whether that one would have written the same KV."""
        return self.writer is None or same_answers(self.writer, version)

    def reads(self, version: Version) -> bool:
        """Whether that one goes on with the answer."""
        return self.reader is None or same_answers(self.reader, version)


class Side(NamedTuple):
    """One pool of a model: its replicas now, its weights by the router's spec, the model's adapter there."""

    names: Callable[[], tuple[str, ...]]
    source: str
    adapter: Adapter | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What fits what, for two tuples of names and one state of the roster."""

    key: tuple[tuple[str, ...], tuple[str, ...], int]
    writers: Mapping[str, Group]
    readers: Mapping[str, Group]
    fits: Mapping[str, frozenset[str]]
    problem: str
    settled: tuple[Choice, Choice] | None
    """What writes and what reads where nothing rolls: one version a side, and they fit."""


class VersionPairing:
    """`router.pipeline.Pairing` of one model."""

    def __init__(
        self,
        roster: Roster,
        prefill: Side,
        decode: Side,
        draw: Callable[[], float],
        *,
        untrained_pair: bool = False,
    ) -> None:
        self._roster = roster
        self._prefill, self._decode = prefill, decode
        self._draw = draw
        self._untrained_pair = untrained_pair
        self._plan: _Plan | None = None

    def writers(self, pinned: Pinned | None, avoid: frozenset[str]) -> Choice:
        """The version that the prefill may have. One that has no reader now is none.

        Of several, a draw decides. Each side of a roll can do as much as its smaller half, and gets so much
        of the requests; a version whose replicas have all failed the request comes last.
        """
        plan = self._current()
        if plan.settled and pinned is None:
            return plan.settled[0]
        if not plan.writers:
            return self._unknown(plan.key[0])
        if not plan.readers and (unknown := self._unknown(plan.key[1])).problem:
            return unknown
        weights: dict[str, float] = {}
        for name, group in plan.writers.items():
            if pinned and not pinned.writes(group.version):
                continue
            readers = [plan.readers[each] for each in plan.fits[name]]
            if pinned:
                readers = [reader for reader in readers if pinned.reads(reader.version)]
            if not readers and plan.readers:
                continue
            weights[name] = self._weight(plan, group, readers, avoid)
        if not weights:
            return Choice(problem=self._gone(pinned) if pinned else plan.problem)
        return Choice(frozenset((_drawn(weights, self._draw()),)))

    def readers(self, writer: Version | None, pinned: Pinned | None) -> Choice:
        """The versions that may read what `writer` wrote. None: there is no ticket, and nothing to read."""
        plan = self._current()
        if plan.settled and pinned is None and (writer is None or writer.id in plan.fits):
            return plan.settled[1]
        if not plan.readers:
            return self._unknown(plan.key[1])
        versions, problem = set(), ""
        for name, group in plan.readers.items():
            if pinned and not pinned.reads(group.version):
                continue
            misfit = self._misfit(writer, group.version)
            if misfit is None:
                versions.add(name)
            problem = problem or misfit or ""
        if versions:
            return Choice(frozenset(versions))
        return Choice(problem=problem or (self._gone(pinned) if pinned else plan.problem))

    def version(self, replica: str) -> Version | None:
        """What a replica runs, if it has said so."""
        return self._roster.version(replica)

    def _current(self) -> _Plan:
        prefill, decode = self._prefill.names(), self._decode.names()
        plan = self._plan
        if plan is not None:
            known = plan.key
            if known[0] is prefill and known[1] is decode and known[2] == self._roster.changes:
                return plan
        plan = self._plan = self._made(prefill, decode)
        return plan

    def _made(self, prefill: tuple[str, ...], decode: tuple[str, ...]) -> _Plan:
        writers, readers = self._roster.groups(prefill), self._roster.groups(decode)
        fits: dict[str, frozenset[str]] = {}
        problem = ""
        for name, group in writers.items():
            written = with_adapter(group.version, self._prefill.adapter)
            wrong = adapter_version_misfit(self._prefill.adapter, group.version, self._prefill.source)
            misfits = {each: wrong or self._misfit(written, readers[each].version) for each in readers}
            fits[name] = frozenset(each for each, misfit in misfits.items() if misfit is None)
            problem = problem or next((misfit for misfit in misfits.values() if misfit), "")
        settled = None
        if len(writers) == len(readers) == 1 and not problem:
            settled = Choice(frozenset(writers)), Choice(frozenset(readers))
        return _Plan((prefill, decode, self._roster.changes), writers, readers, fits, problem, settled)

    def _misfit(self, writer: Version | None, reader: Version) -> str | None:
        if wrong := adapter_version_misfit(self._decode.adapter, reader, self._decode.source):
            return wrong
        if writer is None:
            return None
        return version_misfit(writer, with_adapter(reader, self._decode.adapter), self._untrained_pair)

    @staticmethod
    def _weight(plan: _Plan, group: Group, readers: list[Group], avoid: frozenset[str]) -> float:
        if avoid.issuperset(group.replicas):
            return 0.0
        writing = sum(len(each.replicas) for each in plan.writers.values())
        reading = sum(len(each.replicas) for each in plan.readers.values()) or 1
        share = sum(len(each.replicas) for each in readers) / reading
        return min(len(group.replicas) / writing, share) if plan.readers else len(group.replicas) / writing

    @staticmethod
    def _unknown(replicas: tuple[str, ...]) -> Choice:
        """Of a pool no replica of which has said who it is."""
        if not replicas:
            return NOBODY
        return Choice(problem=f"{replicas[0]} has not said yet what it runs", passing=True)

    @staticmethod
    def _gone(pinned: Pinned) -> str:
        names = " and ".join(each.source for each in (pinned.writer, pinned.reader) if each)
        return f"no replicas are left that run {names} as the answer began with them"


def _drawn(weights: Mapping[str, float], draw: float) -> str:
    """One of the names, as often as its weight says; any of them when all weigh nothing."""
    names = list(weights)
    total = sum(weights.values())
    if total <= 0:
        return names[int(draw * len(names))]
    left = draw * total
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    return names[-1]
