"""The sizes of all pools, decided at once: pure, with the time as a parameter and its state in and out.

Pools are looked at together, because what one needs depends on the others: a prefill pool does not grow for
requests that no decode pool can take, and a bound on GPUs is shared by need. Models do not appear: a pool's
figures are those of all its models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from heliostat.wire import PoolKey, Role, StepTime
from router.scaling.base import Decision, Kind, Memory, Need, PoolMemory, Reading, ScaledPool, Seen, Wanted
from router.scaling.damping import damped, remember
from router.scaling.decode import decode_need
from router.scaling.prefill import LOOK_BACK_S, prefill_need


def decide(
    pools: Sequence[ScaledPool],
    readings: Mapping[PoolKey, Reading],
    memory: Memory,
    now_s: float,
    max_gpus: int | None = None,
) -> Decision:
    """The wanted size of every pool that has a reading, with its reason, and what to remember.

    To be called again and again, every second or so, with the memory of the last call. `max_gpus` bounds
    the sum over all pools; nothing that runs is taken away for it.
    """
    known = {pool.key: pool for pool in pools if pool.key in readings}
    remembered = {
        key: _noted(pool, readings[key], memory.pools.get(key), now_s) for key, pool in known.items()
    }
    needs = {key: _need(pool, readings[key], remembered[key]) for key, pool in known.items()}
    wanted: dict[PoolKey, Wanted] = {}
    for key, pool in known.items():
        need = needs[key]
        remembered[key] = (
            remember(remembered[key], pool, need, now_s)
            if need
            else replace(remembered[key], wishes=(), since_s=now_s)
        )
        wanted[key] = _wanted(pool, readings[key], need, remembered[key], now_s)
    _hold_for_decode(known, readings, needs, wanted)
    if max_gpus is not None:
        _share_gpus(known, readings, needs, wanted, max_gpus)
    return Decision(wanted, Memory(remembered))


def _noted(pool: ScaledPool, reading: Reading, memory: PoolMemory | None, now_s: float) -> PoolMemory:
    if memory is None:
        memory = PoolMemory(since_s=now_s, called_s=now_s)
    seen = memory.seen
    if seen and _counts_anew(seen[-1].reading, reading):
        seen = ()
    called = reading.running + reading.waiting + reading.outside > 0 or (
        bool(seen) and reading.served.requests > seen[-1].reading.served.requests
    )
    kept = tuple(each for each in seen if now_s - each.at_s <= LOOK_BACK_S)
    return replace(
        memory,
        called_s=now_s if called else memory.called_s,
        seen=(*kept, Seen(now_s, reading)),
        rate=reading.rate or memory.rate,
        step=memory.step if reading.step == StepTime() else reading.step,
    )


def _counts_anew(before: Reading, now: Reading) -> bool:
    """Whether some count of events has gone down: whoever counted has started again."""
    return now.served.requests < before.served.requests or now.let_in < before.let_in


def _need(pool: ScaledPool, reading: Reading, memory: PoolMemory) -> Need | None:
    if pool.role is Role.DECODE:
        return decode_need(pool, reading, memory.step, memory.seen)
    return prefill_need(pool, reading, memory.rate, memory.seen)


def _wanted(
    pool: ScaledPool, reading: Reading, need: Need | None, memory: PoolMemory, now_s: float
) -> Wanted:
    size = reading.size
    if not pool.scales:
        return Wanted(pool.least, Kind.FIXED, f"it has {pool.least} and does not scale")
    if idle := _idle(pool, reading, memory, now_s):
        return idle
    floor = max(pool.least, 1)  # to zero it goes only by the rule of `_idle`
    if size == 0 and reading.outside:
        least = max(floor, min(need.low, pool.most) if need else floor)
        return Wanted(least, Kind.CALLED, f"{reading.outside:.0f} requests wait for its first replica")
    if size == 0 and pool.least == 0:
        return Wanted(0, Kind.IDLE, "nobody calls it")
    after = size if need is None else damped(memory, pool, size, now_s)
    bounded = min(max(after, floor), pool.most)
    if need is None:
        return Wanted(bounded, Kind.ENOUGH, "nothing is known of its speed yet")
    if bounded > size:
        kind = need.kind if after >= bounded else Kind.BOUNDS
        return Wanted(bounded, kind, f"more: {need.reason}")
    if bounded < size:
        words = f"fewer, for {pool.down_delay_s:g} s would have been enough: {need.reason}"
        return Wanted(bounded, Kind.LESS_LOAD if after < size else Kind.BOUNDS, words)
    if need.low > pool.most:
        return Wanted(bounded, Kind.BOUNDS, f"{need.low} are needed and {pool.most} allowed: {need.reason}")
    return Wanted(bounded, Kind.ENOUGH, need.reason)


def _idle(pool: ScaledPool, reading: Reading, memory: PoolMemory, now_s: float) -> Wanted | None:
    quiet_s = now_s - memory.called_s
    if pool.least > 0 or reading.size == 0 or quiet_s < pool.idle_s:
        return None
    return Wanted(0, Kind.IDLE, f"nobody has called it for {quiet_s:.0f} s")


def _hold_for_decode(
    pools: Mapping[PoolKey, ScaledPool],
    readings: Mapping[PoolKey, Reading],
    needs: Mapping[PoolKey, Need | None],
    wanted: dict[PoolKey, Wanted],
) -> None:
    """A prefill pool does not grow while all decode pools behind it are full and can grow no further."""
    full = {
        key[1]
        for key, pool in pools.items()
        if key[0] is Role.DECODE
        and (need := needs[key]) is not None
        and need.kind in (Kind.KV, Kind.SLOTS)
        and need.low > pool.most
    }
    for key, pool in pools.items():
        size = readings[key].size
        grows = key[0] is Role.PREFILL and 0 < size < wanted[key].replicas
        if grows and pool.leads_to and pool.leads_to <= full:
            names = ", ".join(sorted(pool.leads_to))
            floor = max(size, pool.least)
            wanted[key] = Wanted(floor, Kind.DECODE_FULL, f"decode holds back: {names} can take no more")


def _share_gpus(
    pools: Mapping[PoolKey, ScaledPool],
    readings: Mapping[PoolKey, Reading],
    needs: Mapping[PoolKey, Need | None],
    wanted: dict[PoolKey, Wanted],
    max_gpus: int,
) -> None:
    """Growth is cut down to the bound, first where the size after it covers most of the need."""

    def covered(key: PoolKey) -> float:
        need = needs[key]
        return wanted[key].replicas / max(need.low if need else 1, 1)

    while sum(each.replicas * pools[key].gpus for key, each in wanted.items()) > max_gpus:
        growing = [
            key
            for key, each in wanted.items()
            if pools[key].gpus and each.replicas > max(readings[key].size, pools[key].least)
        ]
        if not growing:
            return
        key = max(growing, key=covered)
        reason = f"all pools together may take {max_gpus} GPUs: {wanted[key].reason}"
        wanted[key] = Wanted(wanted[key].replicas - 1, Kind.GPUS, reason)
