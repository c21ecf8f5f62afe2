"""What all headlines are made of: clusters from a few numbers, runs of them, and the arithmetic between runs.

A run is a plain value, so that independent runs can be spread over processes.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, TypeVar

from benchmarks.headline_assumptions import MAX_MODEL_LEN
from benchmarks.report import REPOSITORY, Metric
from heliostat.errors import HeliostatError
from heliostat.spec import Family, Limits, Model, Pool, Spec
from heliostat.wire import PoolKey, Role
from simulator.profile import Hardware
from simulator.router import Options
from simulator.run import simulate
from simulator.slo import Slo
from simulator.summary import Summary, summarize
from simulator.topology import Arrangement, arrange
from simulator.workload.base import Workload

T = TypeVar("T")
R = TypeVar("R")

Metrics = dict[str, Metric]

NO_REFUSAL = Limits(queue_s=36000.0, max_queued=1_000_000)
"""Whoever comes waits: what a cluster cannot carry shows as latency, not as missing requests."""

MAX_TRIES = 40
STEP = 1.12
"""The search for a rate goes up or down by this factor, and halves the last step once: 6 % steps."""


@dataclass(frozen=True)
class Run:
    """One simulated run. `slo` and `warmup` (a share) say how it is read."""

    arrangement: Arrangement
    workload: Workload
    hardware: Hardware
    seed: int
    slo: Slo
    warmup: float
    options: Options = field(default_factory=Options)


class Ran(NamedTuple):
    """What came of it. `makespan_tokens_per_s`: all output tokens over the time until the last answer."""

    summary: Summary
    makespan_tokens_per_s: float


def execute(run: Run) -> Ran:
    """Simulate and summarize. Raises HeliostatError where model or GPU are not known."""
    outcome = simulate(
        run.arrangement,
        run.workload,
        run.hardware,
        directory=REPOSITORY,
        seed=run.seed,
        options=run.options,
    )
    tokens = sum(outcome.requests.output_tokens) / outcome.elapsed_s
    return Ran(summarize(outcome, run.slo, run.warmup), tokens)


@dataclass(frozen=True)
class Bench:
    """How the runs are made: on which seeds, in how many processes, and whether it is only a smoke test."""

    seeds: tuple[int, ...] = (1, 2, 3)
    processes: int = 2
    quick: bool = False

    def map(self, function: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
        """One result per task, in their order. `function` is importable, tasks and results can be pickled."""
        if self.processes == 1 or len(tasks) < 2:
            return [function(task) for task in tasks]
        with ProcessPoolExecutor(self.processes) as pool:
            return list(pool.map(function, tasks))

    def over_seeds(
        self, function: Callable[[Run], R], runs: Mapping[str, Callable[[int], Run]]
    ) -> dict[str, list[R]]:
        """Per name the results on each seed; a `runs` entry makes the run of a seed."""
        found = self.map(function, [make(seed) for make in runs.values() for seed in self.seeds])
        number = len(self.seeds)
        return {name: found[at * number : (at + 1) * number] for at, name in enumerate(runs)}


def names_of(count: int) -> tuple[str, ...]:
    """Of models, the most popular first."""
    return tuple(f"model-{number}" for number in range(1, count + 1))


def cluster(base: str, topology: str, models: int, replicas: Mapping[PoolKey, int]) -> Arrangement:
    """So many models of one family in a topology, each replica one GPU; pools not named have one replica."""
    names = names_of(models)
    pools = {name: Pool(weights=base) for name in names}
    spec = Spec(
        family=Family(base=base, max_model_len=MAX_MODEL_LEN),
        prefill=pools,
        decode=pools,
        models={name: Model(prefill=name, decode=name, limits=NO_REFUSAL) for name in names},
    )
    arrangement = arrange(spec, topology)
    known = arrangement.pools()
    if unknown := [key for key in replicas if key not in known]:
        raise HeliostatError(f"{topology} has no pool {unknown[0]}; it has {', '.join(map(str, known))}")
    return arrangement.scaled(dict.fromkeys(known, 1) | dict(replicas))


def sized(role: Role, replicas: Mapping[str, int]) -> dict[PoolKey, int]:
    """As `Arrangement.scaled` takes it: replicas of pools of one role, by name."""
    return {(role, name): number for name, number in replicas.items()}


def largest_rate(keeps: Callable[[float], bool], guess: float) -> float:
    """The largest rate tried that keeps the SLO: steps of `STEP` from the guess until one fails (or, below
    it, one holds), then one step is halved. Raises HeliostatError after `MAX_TRIES` steps."""
    up = keeps(guess)
    held, failed = (guess, guess * STEP) if up else (guess / STEP, guess)
    for _ in range(MAX_TRIES):
        if keeps(failed if up else held) is not up:
            break
        held, failed = (failed, failed * STEP) if up else (held / STEP, held)
    else:
        raise HeliostatError(f"no limit within {MAX_TRIES} steps of {STEP:g} from {guess:g}; guess better")
    middle = (held * failed) ** 0.5
    return middle if keeps(middle) else held


def split_gpus(total: int, loads: Mapping[PoolKey, float]) -> dict[PoolKey, int]:
    """GPUs to pools as a planner would: one each, then one by one to the pool with most load per GPU.

    `loads` is the GPUs' worth of work of each pool, in any unit. Raises HeliostatError with too few GPUs.
    """
    if total < len(loads):
        raise HeliostatError(f"{total} GPUs are too few for {len(loads)} pools; give each one at least")
    sizes = dict.fromkeys(loads, 1)
    for _ in range(total - len(loads)):
        sizes[max(loads, key=lambda pool: loads[pool] / sizes[pool])] += 1
    return sizes


def middle(values: Sequence[float | None]) -> float:
    """The median over seeds. A value that is missing, because nothing was served, is an error."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise HeliostatError("a run served nothing that could be measured; raise its duration or its rate")
    return median(known)


def ratio(above: Sequence[float | None], below: Sequence[float | None]) -> float:
    """The median over seeds of the ratio: both sides had the same arrivals with the same seed."""
    pairs = zip(above, below, strict=True)
    return median(middle([one]) / middle([other]) for one, other in pairs)


def higher(value: float, unit: str, goal: float | None = None, peer: float | None = None) -> Metric:
    return Metric(value=round(value, 4), unit=unit, goal=goal, better="higher", peer=_rounded(peer))


def lower(value: float, unit: str, goal: float | None = None, peer: float | None = None) -> Metric:
    return Metric(value=round(value, 4), unit=unit, goal=goal, better="lower", peer=_rounded(peer))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
