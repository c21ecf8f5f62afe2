"""How few GPUs keep an SLO? A search over the replicas of each pool, one simulated run per try.

Replicas are added where requests wait until the SLO is kept, then taken away pool by pool while it still is.
The end is a smallest cluster in the sense that no pool can lose a replica; that no other mix of pools with
fewer GPUs would do is not proven, but two orders of taking away are tried.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from heliostat.errors import HeliostatError
from heliostat.wire import PoolKey, Role
from simulator.bottleneck import bottlenecks
from simulator.summary import Summary
from simulator.topology import Arrangement

ATTAINMENT = 0.95
"""The share of requests that must keep the SLO, as in "90 or 95 % attainment" of DistServe (Zhong et al.
2024, section 6)."""

MAX_GPUS = 256

MAX_RUNS = 100

Sizes = dict[PoolKey, int]
"""Replicas of each pool."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One cluster that was tried: its replicas by pool, and whether it kept the SLO often enough."""

    number: int
    replicas: Sizes
    gpus: int
    good_share: float
    met: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What the search came to.

    `arrangement` and `summary` are of the smallest cluster that keeps the SLO, or None where none of those
    tried does. `complete` is False when the runs were used up before the search had ended. `remark` says the
    same for people.
    """

    arrangement: Arrangement | None
    summary: Summary | None
    complete: bool
    remark: str
    trials: tuple[Trial, ...]


def find_min_gpus(
    run: Callable[[Arrangement], Summary],
    arrangement: Arrangement,
    attainment: float = ATTAINMENT,
    max_gpus: int = MAX_GPUS,
    max_runs: int = MAX_RUNS,
    on_trial: Callable[[Trial], None] | None = None,
) -> Found:
    """Search for the smallest cluster of this arrangement's pools whose `good_share` reaches `attainment`.

    Begins with one replica in each pool, whatever the arrangement has. Calls `run` at most `max_runs` times,
    never twice for the same replicas, and `on_trial` after each. Deterministic if `run` is.
    Raises HeliostatError for an attainment outside (0, 1], and when `max_gpus` is less than one replica of
    each pool takes.
    """
    if not 0 < attainment <= 1:
        raise HeliostatError(
            f"an attainment of {attainment:g} cannot be reached; give a share above 0, up to 1"
        )
    tries = _Tries(run, arrangement, attainment, max_runs, on_trial or (lambda trial: None))
    smallest: Sizes = dict.fromkeys(arrangement.pools(), 1)
    if (least := tries.gpus(smallest)) > max_gpus:
        raise HeliostatError(
            f"one replica of each pool of {arrangement.topology} takes {least} GPUs, more than the limit of "
            f"{max_gpus}; raise the limit or give the spec fewer pools"
        )
    try:
        grown = _grow(tries, smallest, max_gpus)
        if grown is not None:
            prefill_first = sorted(smallest, key=lambda pool: pool[0] is not Role.PREFILL)
            decode_first = sorted(smallest, key=lambda pool: pool[0] is Role.PREFILL)
            for order in (prefill_first, decode_first):
                _shrink(tries, grown, order)
    except _RunsUsedUp:
        return tries.found(complete=False, max_gpus=max_gpus)
    return tries.found(complete=True, max_gpus=max_gpus)


class _RunsUsedUp(Exception):
    """Ends the search from wherever it is; never leaves this file."""


@dataclass
class _Tries:
    """Runs clusters, remembers what came of them, and counts."""

    run: Callable[[Arrangement], Summary]
    arrangement: Arrangement
    attainment: float
    max_runs: int
    on_trial: Callable[[Trial], None]
    trials: list[Trial] = field(default_factory=list)
    known: dict[tuple[int, ...], Summary] = field(default_factory=dict)
    best: tuple[Arrangement, Summary] | None = None

    def gpus(self, sizes: Sizes) -> int:
        return self.arrangement.scaled(sizes).gpus

    def summary(self, sizes: Sizes) -> Summary:
        key = tuple(sizes.values())
        if key in self.known:
            return self.known[key]
        if len(self.trials) >= self.max_runs:
            raise _RunsUsedUp
        scaled = self.arrangement.scaled(sizes)
        summary = self.known[key] = self.run(scaled)
        met = self._met(summary)
        if met and (self.best is None or scaled.gpus < self.best[0].gpus):
            self.best = scaled, summary
        trial = Trial(len(self.trials) + 1, dict(sizes), scaled.gpus, summary.good_share, met)
        self.trials.append(trial)
        self.on_trial(trial)
        return summary

    def met(self, sizes: Sizes) -> bool:
        return self._met(self.summary(sizes))

    def _met(self, summary: Summary) -> bool:
        return summary.good_share >= self.attainment

    def found(self, *, complete: bool, max_gpus: int) -> Found:
        arrangement, summary = self.best or (None, None)
        return Found(arrangement, summary, complete, self._remark(complete, max_gpus), tuple(self.trials))

    def _remark(self, complete: bool, max_gpus: int) -> str:
        after = f"after {len(self.trials)} run{'' if len(self.trials) == 1 else 's'}"
        if self.best is None:
            nearest = max(self.trials, key=lambda trial: trial.good_share)
            reached = f"{nearest.good_share:.1%} of requests keep the SLO with {nearest.gpus}"
            what = f"nothing up to {max_gpus} GPUs suffices" if complete else "nothing found yet"
            return f"{self.arrangement.topology}: {what} {after}; the best: {reached}"
        arrangement, summary = self.best
        short = "" if complete else ", but the search was not at its end"
        return (
            f"{arrangement.topology}: {arrangement.gpus} GPUs suffice ({summary.good_share:.1%} of requests "
            f"keep the SLO) {after}{short}"
        )


def _grow(tries: _Tries, smallest: Sizes, max_gpus: int) -> Sizes | None:
    """Double the pools in which requests wait until the SLO is kept; None when the GPUs do not suffice.

    Where that did not help, both pools of the models in question are doubled: who waits is a guess.
    """
    sizes, last = dict(smallest), -1.0
    while not tries.met(sizes):
        summary = tries.summary(sizes)
        roles = tuple(Role) if summary.good_share <= last else ()
        narrow = bottlenecks(tries.arrangement, summary, tries.attainment, roles)
        last = summary.good_share
        bigger = dict(sizes)
        for pool in sizes:  # in the order of the spec, so that what is left goes to the same ones always
            if pool in narrow:
                add = sizes[pool]
                while add and tries.gpus(bigger | {pool: sizes[pool] + add}) > max_gpus:
                    add //= 2
                bigger[pool] += add
        if bigger == sizes:
            return None
        sizes = bigger
    return sizes


def _shrink(tries: _Tries, sizes: Sizes, order: Iterable[PoolKey]) -> Sizes:
    """Take replicas from one pool after the other, until none can lose one."""
    pools = list(order)
    before: Sizes = {}
    while before != sizes:
        before = sizes
        for pool in pools:
            sizes = sizes | {pool: _fewest(tries, sizes, pool)}
    return sizes


def _fewest(tries: _Tries, sizes: Sizes, pool: PoolKey) -> int:
    """By bisection: more replicas of a pool are taken to never hurt."""
    too_few, enough = 0, sizes[pool]
    # One less is asked first: where nothing can be taken away any more, it is the only question.
    middle = enough - 1
    while enough - too_few > 1:
        if tries.met(sizes | {pool: middle}):
            enough = middle
        else:
            too_few = middle
        middle = (too_few + enough) // 2
    return enough
