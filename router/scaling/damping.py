"""From what is needed now to what is wanted: no pool follows every moment.

    grow    to the lowest need of the last `up_delay_s`: it was needed all that time
    shrink  to the highest need, headroom included, of the last `down_delay_s`: no moment of it needed more

Between the two the size stays. The need of a smaller pool includes headroom (`Need.high`), so the load must
grow by a quarter before a pool that has just shrunk grows again.
"""

from dataclasses import replace

from router.scaling.base import Need, PoolMemory, ScaledPool, Wish


def remember(memory: PoolMemory, pool: ScaledPool, need: Need, now_s: float) -> PoolMemory:
    """With one more wish, and without those that no delay reaches."""
    reach_s = max(pool.up_delay_s, pool.down_delay_s)
    kept = tuple(wish for wish in memory.wishes if now_s - wish.at_s <= reach_s)
    return replace(memory, wishes=(*kept, Wish(now_s, need.low, need.high)))


def damped(memory: PoolMemory, pool: ScaledPool, size: int, now_s: float) -> int:
    """The size after the delays, before bounds."""
    growing = _last(memory, pool.up_delay_s, now_s)
    if growing and (least := min(wish.low for wish in growing)) > size:
        return least
    shrinking = _last(memory, pool.down_delay_s, now_s)
    if shrinking and (most := max(wish.high for wish in shrinking)) < size:
        return most
    return size


def _last(memory: PoolMemory, delay_s: float, now_s: float) -> list[Wish]:
    """The wishes of that time; none before there were any for so long."""
    if now_s - memory.since_s < delay_s:
        return []
    return [wish for wish in memory.wishes if now_s - wish.at_s <= delay_s]
