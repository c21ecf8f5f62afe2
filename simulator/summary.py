"""From the raw figures of a run to what a table, a plot or a search says about it.

Requests that arrive during the warm-up are left out, because they meet an empty cluster and cold caches.
Throughput is counted between the end of the warm-up and the last arrival: what an overloaded cluster works
off afterwards is no throughput.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from heliostat.errors import HeliostatError
from heliostat.wire import Role
from simulator.measures import (
    Columns,
    Floats,
    Window,
    floats,
    mean,
    prefix_hit_ratio,
    read_columns,
    session_s,
    share_of,
    tokens_per_s,
)
from simulator.outcome import Outcome, PoolOutcome
from simulator.slo import Slo
from simulator.timing.capacity import GIB


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Percentiles(_Frozen):
    """Of one latency, ms, interpolated linearly (numpy's default). None where nothing was measured."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class PoolSummary(_Frozen):
    """One pool. `utilization`: share of its replicas' time, the drain included, in which they computed;
    `replicas` the most that it had at a time, `replicas_mean` the mean of those asked for.

    `mean_batch` is requests per decode step, 0 for a pool that decodes nothing. The other means and the peak
    are over the timeline between warm-up and last arrival; `kv_use` is a share of the pool's KV space.
    """

    name: str
    role: Role
    replicas: int
    replicas_mean: float
    gpus: int
    utilization: float
    mean_batch: float
    preemptions: int
    running_mean: float
    waiting_mean: float
    kv_use_mean: float
    kv_use_peak: float


class ModelSummary(_Frozen):
    """One model's requests after the warm-up, refused ones included; shares are of all of them.

    A refused request misses TTFT. `tpot` is in ms, as everywhere.
    """

    name: str
    requests: int
    refused: int
    ttft_p95_ms: float | None
    tpot_p50_ms: float | None
    tpot_p95_ms: float | None
    good_share: float
    ttft_missed_share: float
    tpot_missed_share: float


class Summary(_Frozen):
    """One run. Latencies are of requests that arrived after the warm-up and were served.

    `session_ms` runs from a session's first arrival to its last answer, over sessions that began after the
    warm-up and of which no call was refused. `output_tokens_per_s` counts the tokens of a request, spread
    evenly from its first to its last, by how much of that time lies in the window. `goodput_per_s` counts
    the requests that arrived in the window and kept the SLO; `good_share` is the share of all that arrived
    after the warm-up. Requests that were refused, or cut off
    at the end of the run, keep no SLO. Figures per GPU are None on a cluster without one.
    """

    topology: str
    workload: str
    seed: int
    slo: Slo
    duration_s: float
    window_s: float = Field(description="From the end of the warm-up to the last arrival.")
    elapsed_s: float
    wall_s: float
    gpus: int = Field(description="The most of all pools together.")
    gpu_hours: float = Field(description="Until the last arrival; starting and draining replicas count.")
    resized: int = Field(description="How often a pool got another size.")
    requests: int
    refused_share: float
    unfinished: int = Field(description="Sessions that were still open when the run was cut off.")
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    end_to_end_ms: Percentiles
    session_ms: Percentiles
    output_tokens_per_s: float
    output_tokens_per_s_per_gpu: float | None
    goodput_per_s: float
    goodput_per_s_per_gpu: float | None
    good_share: float
    prefix_hit_ratio: float = Field(description="Prompt tokens not computed again, of all prompt tokens.")
    handoff_gib: float
    pools: tuple[PoolSummary, ...]
    models: tuple[ModelSummary, ...]


def summarize(outcome: Outcome, slo: Slo, warmup_share: float = 0.1) -> Summary:
    """Read an outcome against an SLO; the first `warmup_share` of its duration is left out.

    Raises HeliostatError when that share is not in [0, 1).
    """
    if not 0 <= warmup_share < 1:
        raise HeliostatError(f"the warm-up is {warmup_share:g} of the run; give a share from 0 to below 1")
    window = Window(warmup_share * outcome.duration_s, outcome.duration_s)
    columns = read_columns(outcome, slo, window)
    good = columns.ttft_ok & columns.tpot_ok
    good_in_window = int(np.count_nonzero(good & (columns.arrived <= window.stop_s)))
    goodput = good_in_window / window.length_s if window.length_s > 0 else 0.0
    tokens = tokens_per_s(outcome, window)
    gpus = outcome.gpus
    return Summary(
        topology=outcome.topology,
        workload=outcome.workload,
        seed=outcome.seed,
        slo=slo,
        duration_s=outcome.duration_s,
        window_s=window.length_s,
        elapsed_s=outcome.elapsed_s,
        wall_s=outcome.wall_s,
        gpus=gpus,
        gpu_hours=outcome.gpu_hours,
        resized=outcome.resized,
        requests=len(columns.arrived),
        refused_share=1.0 - share_of(columns.served, 1.0),
        unfinished=outcome.unfinished,
        ttft_ms=_percentiles(columns.ttft[columns.served]),
        tpot_ms=_percentiles(columns.tpot),
        end_to_end_ms=_percentiles(columns.end_to_end[columns.served]),
        session_ms=_percentiles(session_s(outcome, window)),
        output_tokens_per_s=tokens,
        output_tokens_per_s_per_gpu=tokens / gpus if gpus else None,
        goodput_per_s=goodput,
        goodput_per_s_per_gpu=goodput / gpus if gpus else None,
        good_share=share_of(good, 0.0),
        prefix_hit_ratio=prefix_hit_ratio(columns),
        handoff_gib=outcome.handoff_bytes / GIB,
        pools=tuple(_pool(pool, outcome, window) for pool in outcome.pools.values()),
        models=tuple(_model(columns, index, name) for index, name in enumerate(outcome.models)),
    )


def _pool(pool: PoolOutcome, outcome: Outcome, window: Window) -> PoolSummary:
    times = floats(outcome.times_s)
    within = (times >= window.start_s) & (times <= window.stop_s)
    within = within if within.any() else np.ones_like(within)
    kv_use = floats(pool.kv_use)[within]
    return PoolSummary(
        name=pool.name,
        role=pool.role,
        replicas=pool.replicas,
        replicas_mean=mean(floats(pool.sizes)[within]),
        gpus=pool.replicas * pool.gpus_per_replica,
        utilization=pool.busy_s / pool.held_s if pool.held_s else 0.0,
        mean_batch=pool.step_requests / pool.steps if pool.steps else 0.0,
        preemptions=pool.preemptions,
        running_mean=mean(floats(pool.running)[within]),
        waiting_mean=mean(floats(pool.waiting)[within]),
        kv_use_mean=mean(kv_use),
        kv_use_peak=float(kv_use.max(initial=0.0)),
    )


def _model(columns: Columns, index: int, name: str) -> ModelSummary:
    mine = columns.model == index
    served = columns.served[mine]
    tpot = _percentiles(columns.tpot[mine])
    return ModelSummary(
        name=name,
        requests=len(served),
        refused=int(np.count_nonzero(~served)),
        ttft_p95_ms=_percentiles(columns.ttft[mine][served]).p95,
        tpot_p50_ms=tpot.p50,
        tpot_p95_ms=tpot.p95,
        good_share=share_of((columns.ttft_ok & columns.tpot_ok)[mine], 0.0),
        ttft_missed_share=share_of(~columns.ttft_ok[mine], 0.0),
        tpot_missed_share=share_of(~columns.tpot_ok[mine], 0.0),
    )


def _percentiles(seconds: Floats) -> Percentiles:
    """Of times in seconds, as ms; NaN entries do not count."""
    known = seconds[~np.isnan(seconds)]
    if not len(known):
        return Percentiles()
    p50, p95, p99 = (float(value) * 1000 for value in np.percentile(known, (50, 95, 99)))
    return Percentiles(p50=p50, p95=p95, p99=p99)
