"""From what is needed now to what is wanted: no pool follows every moment.

    grow    to the lowest need of the last `up_delay_s`: it was needed all that time
    shrink  to the highest need, headroom included, of the last `down_delay_s`: no moment of it needed more

Between the two the size stays. The highest need of a smaller pool includes headroom (`Need.high`), so the load
must grow by a quarter before a pool that has just shrunk grows again.
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
    raise_to = _over(memory, pool.up_delay_s, now_s, lambda wishes: min(wish.low for wish in wishes))
    lower_to = _over(memory, pool.down_delay_s, now_s, lambda wishes: max(wish.high for wish in wishes))
    if raise_to is not None and raise_to > size:
        return raise_to
    if lower_to is not None and lower_to < size:
        return lower_to
    return size


def _over(memory: PoolMemory, delay_s: float, now_s: float, read) -> int | None:  # type: ignore[no-untyped-def]
    """Over the wishes of the last `delay_s`; None before there were any for so long."""
    if now_s - memory.since_s < delay_s:
        return None
    return read([wish for wish in memory.wishes if now_s - wish.at_s <= delay_s])
