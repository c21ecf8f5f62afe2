"""SUN per GPU of the whole service, what an operator pays for; and what the gain depends on.

Prefill and decode GPUs are counted, and a planner deals them out by popularity. Prefill stays per model in
SUN, so a model that nobody calls still takes a GPU there; dedicated, it takes two.
"""

from collections.abc import Mapping

from benchmarks import headline_assumptions as assumed
from benchmarks.headline_runs import (
    Bench,
    Metrics,
    cluster,
    higher,
    middle,
    ratio,
    split_gpus,
)
from benchmarks.headline_sun import (
    SEARCH_FROM,
    Setting,
    dedicated,
    dedicated_guess,
    label,
    limits,
    sun,
)
from heliostat.wire import PoolKey, Role
from simulator.topology import SHARED, Arrangement

SERVICE_GPUS = 16


def measure_service(bench: Bench) -> Metrics:
    """All GPUs counted: evenly dedicated, dedicated by popularity, and SUN by popularity."""
    settings = [Setting(4, 1.0)]
    if not bench.quick:
        settings += [Setting(8, zipf) for zipf in (0.0, 1.0, 2.0)]
    prefill_rate, decode_rate = _capacities(bench)
    wanted: dict[str, tuple[Setting, Arrangement, float]] = {}
    for setting in settings:
        name, shares, n = label(setting), setting.shares, setting.models
        per_role = SERVICE_GPUS // n // 2
        even = dedicated(setting, per_role, per_role)
        work = {(Role.PREFILL, model): share / prefill_rate for model, share in shares.items()}
        own = {(Role.DECODE, model): share / decode_rate for model, share in shares.items()}
        sizes = split_gpus(SERVICE_GPUS, work | own)
        fitted = cluster(setting.base, "dedicated", n, sizes)
        pooled = split_gpus(SERVICE_GPUS, work | {(Role.DECODE, SHARED): 1 / decode_rate})
        wanted[f"even {name}"] = setting, even, _carried(work | own, even)
        if sizes != dict.fromkeys(sizes, per_role):
            wanted[f"fitted {name}"] = setting, fitted, _carried(work | own, fitted)
        shared = cluster(setting.base, "sun", n, pooled)
        wanted[f"sun {name}"] = (
            setting,
            shared,
            _carried(work | {(Role.DECODE, SHARED): 1 / decode_rate}, shared),
        )
    found = limits(bench, wanted)
    metrics: Metrics = {
        "sun_service_prefill_rate_of_one_gpu": higher(prefill_rate, "req/s"),
        "sun_service_decode_rate_of_one_gpu": higher(decode_rate, "req/s"),
    }
    gains = []
    for setting in settings:
        name = label(setting)
        one, even_limit = found[f"sun {name}"], found[f"even {name}"]
        fitted_limit = found.get(f"fitted {name}", even_limit)
        gains.append(ratio(one, even_limit))
        metrics[f"sun_service_{name}_goodput_per_gpu"] = higher(
            middle(one) / SERVICE_GPUS, "req/s", peer=middle(even_limit) / SERVICE_GPUS
        )
        metrics[f"sun_service_{name}_gain"] = higher(gains[-1], "x")
        metrics[f"sun_service_{name}_gain_over_fitted"] = higher(ratio(one, fitted_limit), "x")
    metrics["sun_service_gain_up_to"] = higher(max(gains), "x", goal=2.0)
    return metrics


def _carried(work: Mapping[PoolKey, float], arrangement: Arrangement) -> float:
    """Requests/s at which the first pool is full."""
    return min(pool.replicas.max / work[key] for key, pool in arrangement.pools().items())


def _capacities(bench: Bench) -> tuple[float, float]:
    """Requests/s that one prefill GPU carries, and one decode GPU, when the other role has plenty."""
    alone = Setting(1, 0.0)
    wanted = {
        "prefill": (alone, dedicated(alone, 1, 6), SEARCH_FROM),
        "decode": (alone, dedicated(alone, 6, 1), SEARCH_FROM),
    }
    found = limits(bench, wanted)
    return middle(found["prefill"]), middle(found["decode"])


def measure_sensitivity(bench: Bench) -> Metrics:
    """The decode gain with one assumption changed at a time, from n = 4 and Zipf 1."""
    if bench.quick:
        return {}
    changed = {
        "llama": Setting(4, base=assumed.LLAMA),
        "context_x2": Setting(4, context=assumed.TWICE),
        "a100": Setting(4, gpu=assumed.PREFILLSHARE_GPU),
        "two_models_even": Setting(2, 0.0),
        "marginal_latency": Setting(8, policy="marginal_latency"),
    }
    wanted: dict[str, tuple[Setting, Arrangement, float]] = {}
    for name, setting in changed.items():
        n = setting.models
        wanted[f"dedicated {name}"] = setting, dedicated(setting, n + 2), dedicated_guess(setting, n)
        wanted[f"sun {name}"] = setting, sun(setting, n + 2, n), SEARCH_FROM * n / setting.context
    found = limits(bench, wanted)
    return {
        f"sun_decode_{name}_gain": higher(ratio(found[f"sun {name}"], found[f"dedicated {name}"]), "x")
        for name in changed
    }
