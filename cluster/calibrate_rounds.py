"""All sizes, several rounds, medians: engines become samples."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median

import psutil

from cluster.calibrate_plan import Sizes
from cluster.calibrate_probe import Probe, Steps, decode_sample
from deployments.engine import Engine
from simulator.timing import HandoffSample, PrefillSample, Samples
from simulator.timing.calibration import HostShare

CROWD_BATCH = 4
CROWD_CONTEXT = 128
"""Requests and prompt tokens of the steps that are measured beside other busy engines."""
CROWD_STEPS = 150
"""So many, that the engines overlap for nearly all of them."""

Done = Callable[[str], None]


async def measure(
    probe: Probe, prefill: Engine, decode: Engine, sizes: Sizes, rounds: int, done: Done
) -> Samples:
    """One sample per size, the median over the rounds; `done` hears what has just been measured.

    A round before the first is not counted: it warms up. Raises HeliostatError.
    """
    prompts: dict[tuple[int, int], list[PrefillSample]] = defaultdict(list)
    handoffs: dict[int, list[HandoffSample]] = defaultdict(list)
    steps: dict[tuple[int, int], list[Steps]] = defaultdict(list)
    for number in range(rounds + 1):
        label = f"round {number}/{rounds}" if number else "warming up"
        for new, cached in sizes.prefill:
            prompts[new, cached].append(await probe.prefill(prefill, new, cached))
            done(f"{label}: prefill of {new} tokens behind {cached}")
        for tokens in sizes.handoff:
            handoffs[tokens].append(await probe.handoff(prefill, decode, tokens))
            done(f"{label}: handoff of {tokens} tokens")
        for requests, context in sizes.decode:
            steps[requests, context].append(await probe.decode(prefill, decode, requests, context))
            done(f"{label}: decode of {requests} x {context} tokens")
    return Samples(
        decode=tuple(decode_sample(each[1:]) for each in steps.values()),
        prefill=tuple(_prefill_sample(each[1:]) for each in prompts.values()),
        handoff=tuple(
            HandoffSample(num_bytes=each[0].num_bytes, ms=median(sample.ms for sample in each[1:]))
            for each in handoffs.values()
        ),
    )


def _prefill_sample(rounds: Sequence[PrefillSample]) -> PrefillSample:
    """Of one size. If the cache has dropped the prefix it is another size, and the most frequent counts."""
    cached = [each.cached_tokens for each in rounds]
    usual = max(set(cached), key=cached.count)
    mine = [each for each in rounds if each.cached_tokens == usual]
    return mine[0].model_copy(update={"ms": median(each.ms for each in mine)})


def own_cpu_s() -> float:
    """CPU seconds so far of this process and its engines."""
    own = psutil.Process()
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def measure_host(
    probe: Probe,
    prefill: Engine,
    decodes: tuple[Engine, Engine],
    rounds: int,
    done: Done,
    cpu_s: Callable[[], float] = own_cpu_s,
) -> HostShare:
    """How much slower engines get on a host whose cores they share, with two of them at work and with three.

    Means, not medians: cores that do something else make few steps much longer. `cpu_s` is CPU time so far.
    Raises HeliostatError.
    """
    one, two = decodes
    alone_ms: list[float] = []
    cores: list[float] = []
    slowdowns: dict[int, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        before_s, wall_s = cpu_s(), time.perf_counter()
        alone_ms.append((await _crowd(probe, prefill, [one]))[0])
        cores.append((cpu_s() - before_s) / (time.perf_counter() - wall_s))
        both = await _crowd(probe, prefill, [one, two])
        async with probe.busy(prefill, CROWD_CONTEXT):
            three = await _crowd(probe, prefill, [one, two])
        slowdowns[2].append(sum(both) / 2)
        slowdowns[3].append(sum(three) / 2)
        done(f"round {number}/{rounds}: engines side by side" if number else "warming up: two engines")
    alone = median(alone_ms[1:])
    return HostShare(
        cores=len(psutil.Process().cpu_affinity()),
        cores_per_engine=median(cores[1:]),
        slowdowns={number: max(1.0, median(each[1:]) / alone) for number, each in slowdowns.items()},
    )


async def _crowd(probe: Probe, prefill: Engine, decodes: Sequence[Engine]) -> list[float]:
    """Mean step, ms, of each of these engines while all of them decode."""
    steps = await asyncio.gather(
        *(probe.decode(prefill, each, CROWD_BATCH, CROWD_CONTEXT, CROWD_STEPS) for each in decodes)
    )
    return [each.mean_ms for each in steps]
