"""Which pools are too small, read from a summary."""

from collections.abc import Iterable

from heliostat.wire import PoolKey, Role
from simulator.summary import ModelSummary, PoolSummary, Summary
from simulator.topology import Arrangement


def bottlenecks(
    arrangement: Arrangement, summary: Summary, attainment: float, roles: Iterable[Role] = ()
) -> set[PoolKey]:
    """The pools to grow: of each model that keeps the SLO too rarely, the one that it misses it in, and
    those of `roles`.

    A missed TPOT is the decode pool's. A missed TTFT, or a refusal, is the prefill pool's unless more
    requests per replica wait in the decode pool: the first token comes from there.
    """
    loads = {(pool.role, pool.name): pool for pool in summary.pools}
    narrow: set[PoolKey] = set()
    for model in summary.models:
        if not model.requests or model.good_share >= attainment:
            continue
        entry = arrangement.spec.models[model.name]
        prefill, decode = (Role.PREFILL, entry.prefill), (Role.DECODE, entry.decode)
        if arrangement.colocated:
            narrow.add(decode)
            continue
        narrow.add(decode if _decode_is_narrow(model, loads[prefill], loads[decode]) else prefill)
        narrow.update(pool for pool in (prefill, decode) if pool[0] in roles)
    return narrow


def _decode_is_narrow(model: ModelSummary, prefill: PoolSummary, decode: PoolSummary) -> bool:
    if model.tpot_missed_share > model.ttft_missed_share:
        return True
    return _pressure(decode) > _pressure(prefill)


def _pressure(pool: PoolSummary) -> tuple[float, float]:
    """Waiting requests per replica; where nobody waits (or admission holds them back), utilization."""
    return pool.waiting_mean / max(pool.replicas, 1), pool.utilization
