"""One run: an arrangement of pools under a workload, in virtual time."""

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path

from heliostat.wire import PoolKey
from simulator.cluster import Cluster
from simulator.engine.profile import Profile
from simulator.flow import Flow
from simulator.outcome import Outcome, PoolOutcome
from simulator.profile import Hardware, profiles_of
from simulator.router import Options
from simulator.topology import Arrangement
from simulator.virtual_time import run
from simulator.workload.base import Session, Workload

SAMPLES = 200
"""Entries of a timeline."""

DRAIN_SHARE = 1.0
"""After the last arrival, the requests that are inside get this share of the duration to end, and no more: a
cluster that falls behind for ever would take for ever."""


def simulate(
    arrangement: Arrangement,
    workload: Workload,
    hardware: Hardware,
    *,
    directory: Path,
    seed: int = 0,
    options: Options | None = None,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """What would become of the workload. Equal arguments give equal outcomes.

    `directory` is where relative weights of the spec are looked for; `progress` hears the share done, 0 to 1.
    Raises HeliostatError where geometry or hardware are not known.
    """
    profiles = profiles_of(arrangement, hardware, directory, workload.block_tokens)
    began_s = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()  # millions of small objects without cycles
    try:
        outcome = run(_simulate(arrangement, workload, profiles, options or Options(), seed, progress))
    finally:
        if collecting:
            gc.enable()
    outcome.wall_s = time.perf_counter() - began_s
    return outcome


async def _simulate(
    arrangement: Arrangement,
    workload: Workload,
    profiles: dict[PoolKey, Profile],
    options: Options,
    seed: int,
    progress: Callable[[float], None] | None,
) -> Outcome:
    loop = asyncio.get_running_loop()
    cluster = Cluster(arrangement, profiles, options, block_tokens=workload.block_tokens, seed=seed)
    flow = Flow(cluster, workload.models, workload.block_tokens)
    pools = cluster.outcomes()
    times_s: list[float] = []
    failures: list[Exception] = []
    loop.set_exception_handler(lambda _, context: failures.append(_failure(context)))
    beats = loop.create_task(cluster.beats())
    watch = loop.create_task(_watch(cluster, workload.duration_s, pools, times_s, progress))
    sessions: dict[asyncio.Task[None], None] = {}  # in the order of arrival, a set has none

    def over(task: asyncio.Task[None]) -> None:
        sessions.pop(task, None)
        if not task.cancelled():
            task.result()

    resizing = [loop.create_task(cluster.resizing.run())] if cluster.resizing else []
    for task in (beats, *resizing):
        task.add_done_callback(over)
    watch.add_done_callback(over)
    async for number, session in _arrivals(workload, seed):
        task = loop.create_task(flow.session(number, session))
        sessions[task] = None
        task.add_done_callback(over)
    if sessions:
        await asyncio.wait(sessions, timeout=workload.duration_s * DRAIN_SHARE)
    elapsed_s, unfinished = loop.time(), len(sessions)
    await _cancel([beats, watch, *resizing, *sessions])
    if failures:
        raise failures[0]
    cluster.settle(pools, workload.duration_s)
    return Outcome(
        topology=arrangement.topology,
        workload=workload.description,
        models=workload.models,
        seed=seed,
        duration_s=workload.duration_s,
        elapsed_s=elapsed_s,
        wall_s=0.0,
        requests=flow.requests,
        pools=pools,
        times_s=times_s,
        handoff_bytes=cluster.handoff_bytes,
        resized=cluster.resizing.resized if cluster.resizing else 0,
        unfinished=unfinished,
    )


async def _arrivals(workload: Workload, seed: int) -> AsyncGenerator[tuple[int, Session], None]:
    """Each session at its time."""
    loop = asyncio.get_running_loop()
    for number, session in enumerate(workload.sessions(seed)):
        if session.at_s > loop.time():
            await asyncio.sleep(session.at_s - loop.time())
        yield number, session


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _failure(context: Mapping[str, object]) -> Exception:
    """What the loop would only log: an engine that dies in a timer looks like one that is slow."""
    error = context.get("exception")
    return error if isinstance(error, Exception) else RuntimeError(str(context.get("message")))


async def _watch(
    cluster: Cluster,
    duration_s: float,
    pools: dict[str, PoolOutcome],
    times_s: list[float],
    progress: Callable[[float], None] | None,
) -> None:
    """Fills the timelines until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        times_s.append(loop.time())
        cluster.sample(pools)
        if progress is not None:
            progress(min(1.0, loop.time() / duration_s))
        await asyncio.sleep(duration_s / SAMPLES)
