"""The telemetry board's table, `table[figure, row]` with a row per replica; and what is read from it.

Stored figure by figure, because a policy reads one figure of all replicas at a time. Pure functions over a
table, or over the rows of one pool taken from it.
"""

import numpy as np
from numpy.typing import NDArray

from heliostat.wire import Load
from router.policy.base import Candidates
from router.pool_figures import PoolFigures

STALE_S = 2.0
"""A reading older than this counts as full for admission. Choices use it all the same: one must be made."""

# Figures: what a reading says, in the order of `reading`, ...
(REPORTED_RUNNING, REPORTED_WAITING, REPORTED_QUEUED, REPORTED_KV, MAX_RUNNING, REPORTED_CONTEXT) = range(6)
(KV_TOKENS, BASE_MS, PER_REQUEST_MS, PER_TOKEN_MS, PREFILL_RATE, OBSERVED_AT) = range(6, 12)
# ... what was chosen since it arrived, what of ours is in flight at all, and until when the replica rests.
(SINCE, SINCE_TOKENS, SINCE_KV, OWN, OWN_TOKENS, OWN_KV, OPEN_UNTIL) = range(12, 19)
FIGURES = 19

Table = NDArray[np.float64]
Figure = NDArray[np.float64]


def blank(replicas: int) -> Table:
    """A table for so many replicas, nothing known of any."""
    table = np.zeros((FIGURES, replicas))
    table[OBSERVED_AT] = -np.inf
    return table


def reading(load: Load, now: float) -> tuple[float, ...]:
    """The figures before `OWN` of a replica that says this now."""
    step = load.step
    return (
        load.running, load.waiting, load.queued_prompt_tokens, load.kv_use * load.kv_tokens, load.max_running,
        load.context_tokens, load.kv_tokens, step.base_ms, step.per_request_ms, step.per_token_ms,
        load.prefill_tokens_per_s / 1000, now, 0.0, 0.0, 0.0,
    )  # fmt: skip


def candidates(
    table: Table, names: tuple[str, ...], cached: Figure, now: float, adapter_ms: Figure | float = 0.0
) -> Candidates:
    """A pool's rows as policies read them. `cached` counts the prompt's tokens cached, per replica,
    `adapter_ms` is what the request's adapter costs there."""
    running, waiting = _requests(table)
    own_tokens, since_tokens = table[OWN_TOKENS], table[SINCE_TOKENS]
    return Candidates(
        names=names,
        queued_tokens=np.maximum(own_tokens, table[REPORTED_QUEUED] + since_tokens),
        prefill_rate=table[PREFILL_RATE],
        cached_tokens=cached,
        running=running,
        waiting=waiting,
        max_running=table[MAX_RUNNING],
        context_tokens=np.maximum(own_tokens, table[REPORTED_CONTEXT] + since_tokens),
        free_kv_tokens=_free_kv(table),
        kv_tokens=table[KV_TOKENS],
        step_base_ms=table[BASE_MS],
        step_per_request_ms=table[PER_REQUEST_MS],
        step_per_token_ms=table[PER_TOKEN_MS],
        in_flight=table[OWN],
        age_s=now - table[OBSERVED_AT],
        resting=table[OPEN_UNTIL] > now,
        adapter_ms=adapter_ms,
    )


def figures(table: Table, now: float) -> PoolFigures:
    """A pool's rows as admission reads them."""
    fresh = table[:, now - table[OBSERVED_AT] <= STALE_S]
    running, waiting = _requests(fresh)
    queued = np.maximum(fresh[OWN_TOKENS], fresh[REPORTED_QUEUED] + fresh[SINCE_TOKENS])
    rate = fresh[PREFILL_RATE]
    waits = np.divide(queued, rate, out=np.zeros_like(queued), where=rate > 0)
    return PoolFigures(
        replicas=table.shape[1],
        fresh=fresh.shape[1],
        slots=float(_unless_zero(fresh[MAX_RUNNING]).sum()),
        running=float(running.sum() + waiting.sum()),
        free_kv_tokens=float(_free_kv(fresh).sum()),
        prefill_wait_ms=float(waits.min(initial=np.inf)),
    )


def _requests(table: Table) -> tuple[Figure, Figure]:
    """Requests computing and waiting: the report, plus what was chosen since; at least our own in flight."""
    reported = table[REPORTED_RUNNING] + table[REPORTED_WAITING]
    requests = np.maximum(table[OWN], reported + table[SINCE])
    waiting = np.maximum(table[REPORTED_WAITING], requests - _unless_zero(table[MAX_RUNNING]))
    return requests - waiting, waiting


def _free_kv(table: Table) -> Figure:
    """KV headroom: what is neither in use nor reserved since the reading; our own reservations at least."""
    taken = np.maximum(table[OWN_KV], table[REPORTED_KV] + table[SINCE_KV])
    free: Figure = _unless_zero(table[KV_TOKENS]) - taken
    return free


def _unless_zero(limits: Figure) -> Figure:
    """A replica that gives no limit has an infinite one."""
    unlimited: Figure = np.where(limits > 0, limits, np.inf)
    return unlimited
