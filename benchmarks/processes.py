"""What the processes of replicas cost on this machine: CPU seconds and memory of whole process trees.

A replica is several processes (its actor, the engine's core, the engine's worker); `pid` in `/status` is the
root of that tree. Trees on other machines cannot be seen from here.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import psutil

from heliostat.errors import HeliostatError


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes. PSS splits a page among the processes that map it; RSS counts it once for each."""

    num_bytes: int
    kind: Literal["PSS", "RSS"]


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User plus system CPU seconds so far of every process in the trees under `pids`, by process id."""
    seconds = {}
    for process in _trees(pids):
        with suppress(psutil.NoSuchProcess):  # a child may end while we look
            times = process.cpu_times()
            seconds[process.pid] = times.user + times.system
    return seconds


def cpu_spent(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """CPU seconds between two readings; a process that ended in between is not counted."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def resident_memory(pids: Iterable[int]) -> Memory:
    """Memory of the trees under `pids`: PSS where the system tells it for all of them, else RSS."""
    processes = list(_trees(pids))
    try:
        return Memory(sum(_pss(process) for process in processes), "PSS")
    except (psutil.AccessDenied, AttributeError):  # another user's process; a system without PSS
        return Memory(sum(process.memory_info().rss for process in processes), "RSS")


def _pss(process: psutil.Process) -> int:
    return int(process.memory_full_info().pss)


def _trees(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        try:
            root = psutil.Process(pid)
            yield root
            yield from root.children(recursive=True)
        except psutil.NoSuchProcess as error:
            raise HeliostatError(
                f"no process {pid} here; run the benchmark on the machine of the replicas"
            ) from error
