"""How many replicas a decode pool needs: for its KV, for its slots, and for its TPOT.

Requests spread over n replicas take, with b = requests / n and c = context / n,

    TPOT(n) = base + per_request * b + per_token * c

as its replicas have measured their steps (`router.step_clock`). The need is the smallest n for which this is
within the target and KV and slots are enough.

The requests are those that are inside, or if they are more those that will be at the present rate of
arrivals: by Little's law arrivals per second times the time that one stays. So a decode pool grows together
with the prefill pools that are too small to bring what has arrived, and not only after them.
"""

import math
from statistics import fmean

from heliostat.wire import StepTime
from router.scaling.base import Kind, Need, Reading, ScaledPool, Seen
from router.scaling.prefill import HEADROOM

KV_FULL = 0.9
"""The share of KV space that may be in use: replicas are never filled evenly, and contexts grow."""

TPOT_MARGIN = 0.95
"""Of the target; the same as in `router.policy.decode`, beyond which milliseconds count ten times there."""

FULL = 0.7
"""With so much of its slots or KV in use, a pool is what holds back those that wait in routers. With less,
their slots are held by requests that are still in prefill, and more decode replicas would not help."""


def decode_need(pool: ScaledPool, reading: Reading, step: StepTime, seen: tuple[Seen, ...]) -> Need:
    """The need; `low` may be above `pool.most`, which says that the pool is full."""
    inside = reading.running + reading.waiting
    arriving, stay_s = flow(seen)
    requests = max(inside, arriving * stay_s)
    if busy_share(reading) >= FULL:
        # Whoever waits outside is let in while a replica starts, and stays no longer than others.
        requests += reading.outside * min(1.0, stay_s / pool.start_s if pool.start_s and stay_s else 1.0)
    # Whoever waits is taken to be as long as those who run.
    each = reading.context_tokens / reading.running if reading.running else 0.0
    context, kv = each * requests, max(reading.kv_used_tokens, each * requests)

    def parts(factor: float) -> dict[Kind, int]:
        return {
            Kind.KV: _ceil(kv * factor, reading.kv_tokens * KV_FULL),
            Kind.SLOTS: _ceil(requests * factor, reading.max_running),
            Kind.TPOT: _for_tpot(pool, reading, step, requests * factor, context * factor),
        }

    low = parts(1.0)
    kind = max(low, key=lambda each: low[each])
    need = max(low[kind], 1 if requests else 0)
    high = max(*parts(HEADROOM).values(), need)
    tpot = predicted_ms(reading, step, requests, context, max(reading.size, 1))
    shown = f", TPOT {tpot:.1f} ms of {pool.target_ms:g}" if pool.target_ms else ""
    reason = f"{requests:.0f} requests, {kv:.0f} tokens of KV{shown} with {reading.size}"
    return Need(need, high, kind, reason)


def flow(seen: tuple[Seen, ...]) -> tuple[float, float]:
    """Requests that arrived per second, in the time looked back on, and seconds that one stayed; 0 for
    unknown."""
    first, last, length_s = seen[0].reading, seen[-1].reading, seen[-1].at_s - seen[0].at_s
    if length_s <= 0.0:
        return 0.0, 0.0
    arrived = last.let_in + last.outside - first.let_in - first.outside
    over = last.served.requests - first.served.requests
    inside = fmean(each.reading.running + each.reading.waiting for each in seen)
    return max(0.0, arrived) / length_s, inside * length_s / over if over else 0.0


def busy_share(reading: Reading) -> float:
    """The fuller of slots and KV, as a share of what the replicas that serve have; 1 without any."""
    slots = reading.max_running * reading.serving
    kv = reading.kv_tokens * reading.serving
    if not slots:
        return 1.0
    return max((reading.running + reading.waiting) / slots, reading.kv_used_tokens / kv if kv else 0.0)


def predicted_ms(reading: Reading, step: StepTime, requests: float, context: float, replicas: int) -> float:
    """TPOT if all of that were spread over so many replicas."""
    if not (step.per_request_ms or step.per_token_ms):
        # Batches that never changed say nothing of slopes: as if all of a step were in proportion to them.
        return step.base_ms * reading.serving / replicas
    return step.base_ms + (step.per_request_ms * requests + step.per_token_ms * context) / replicas


def _for_tpot(pool: ScaledPool, reading: Reading, step: StepTime, requests: float, context: float) -> int:
    if pool.target_ms is None or not requests:
        return 0
    limit = pool.target_ms * TPOT_MARGIN
    within = (
        n for n in range(1, pool.most + 1) if predicted_ms(reading, step, requests, context, n) <= limit
    )
    return next(within, pool.most)


def _ceil(amount: float, per_replica: float) -> int:
    return math.ceil(amount / per_replica) if per_replica else 0
