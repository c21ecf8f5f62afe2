"""What everything around the engines takes of a host's cores: per request, per token, and when idle.

Measured at a load of its own, so the compared loads are predicted and not fitted: router, HAProxy, Serve,
Ray and the load generator, which is on the same cores.
"""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import psutil

from benchmarks.calibration_figures import measured
from benchmarks.calibration_load import fixed_streams
from benchmarks.load import LoadRequest, run_load
from benchmarks.measure import Side, draw_requests
from benchmarks.processes import cpu_seconds
from cluster.status import fetch_status
from heliostat.errors import HeliostatError

IDLE_S = 5.0
STREAMS = 4
SHORT, LONG = (48, 4), (12, 128)
"""Requests and output tokens of two loads: few tokens per request, and many."""


@dataclass(frozen=True, slots=True)
class Front:
    """CPU ms per request and per output token, and the cores that an idle cluster takes, with its engines.

    Of a replica's own process, in which Ray's calls arrive, only what a request takes counts: what its tokens
    take was there when the engines were calibrated.
    """

    request_ms: float
    token_ms: float
    idle_cores: float
    load: tuple[LoadRequest, ...]
    """The load with many tokens per request, `STREAMS` of them at a time ..."""
    tpot_ms: float
    """... and its median TPOT."""


def measure_front(url: str, side: Side, seed: str) -> Front:
    """Watches the processes of a cluster on this host. Raises HeliostatError."""
    processes = _processes(url)
    begin = processes.read()
    time.sleep(IDLE_S)
    idle = (processes.read() - begin) / IDLE_S
    rows, front_ms, replica_ms = [], [], []
    for number, (count, tokens) in enumerate((SHORT, LONG)):
        requests = draw_requests(side, count, exponent=0.0, seed=f"{seed} front {number}", max_tokens=tokens)
        before, begin_s = processes.read(), time.perf_counter()
        answers = run_load(url, requests, partial(fixed_streams, streams=STREAMS))
        spent = processes.read() - before - idle * (time.perf_counter() - begin_s)
        front_ms.append(spent.front_s * 1e3)
        replica_ms.append(spent.replicas_s * 1e3)
        rows.append((count, count * tokens))
    request_ms, token_ms = np.linalg.solve(np.array(rows, float), np.array(front_ms))
    in_replica_ms, _ = np.linalg.solve(np.array(rows, float), np.array(replica_ms))
    return Front(
        max(float(request_ms), 0.0) + max(float(in_replica_ms), 0.0),
        max(float(token_ms), 0.0),
        idle.all_s,
        tuple(requests),
        measured(answers).tpot_p50_ms,
    )


@dataclass(frozen=True, slots=True)
class _Cpu:
    """CPU seconds: around the replicas, in their own processes, and in all, engines included."""

    front_s: float
    replicas_s: float
    all_s: float

    def __sub__(self, other: "_Cpu") -> "_Cpu":
        return _Cpu(
            self.front_s - other.front_s, self.replicas_s - other.replicas_s, self.all_s - other.all_s
        )

    def __mul__(self, factor: float) -> "_Cpu":
        return _Cpu(self.front_s * factor, self.replicas_s * factor, self.all_s * factor)

    def __truediv__(self, divisor: float) -> "_Cpu":
        return self * (1 / divisor)


@dataclass(frozen=True, slots=True)
class _Processes:
    """The roots of the replicas' trees, and of the trees of all of the cluster and this load generator."""

    replicas: tuple[int, ...]
    everything: tuple[int, ...]

    def read(self) -> _Cpu:
        """So far. Raises HeliostatError when a replica is gone."""
        seconds, engines = cpu_seconds(self.everything), cpu_seconds(self.replicas)
        total = sum(seconds.values())
        around = sum(spent for pid, spent in seconds.items() if pid not in engines)
        return _Cpu(around, sum(engines[pid] for pid in self.replicas), total)


def _processes(url: str) -> _Processes:
    status = fetch_status(url)
    if status.router is None:
        raise HeliostatError(f"{url} does not say which process its router is")
    raylet = psutil.Process(status.router.pid).parent()
    if raylet is None:
        raise HeliostatError(f"the router of {url} is not a process of this host's Ray")
    replicas = tuple(replica.pid for pool in status.pools for replica in pool.replicas)
    return _Processes(replicas, (raylet.pid, psutil.Process().pid))
