"""SUN per decode GPU, the paper's own account.

Every model has as many prefill GPUs as the cluster has decode GPUs, so that no prompt ever waits for one;
they are not counted. What differs is only which requests may meet in a decode batch.
"""

from collections.abc import Mapping
from functools import partial

from benchmarks import headline_assumptions as assumed
from benchmarks.headline_runs import (
    Bench,
    Metrics,
    execute,
    higher,
    lower,
    middle,
    ratio,
)
from benchmarks.headline_sun import (
    SEARCH_FROM,
    Setting,
    dedicated,
    dedicated_guess,
    label,
    limits,
    sun,
    tokens_per_s,
    tpot_p50,
)
from simulator.topology import Arrangement


def decode_settings(quick: bool) -> list[Setting]:
    """The Zipf sweep."""
    if quick:
        return [Setting(4, 0.0), Setting(4, 2.0)]
    return [Setting(8, zipf) for zipf in assumed.SUN_ZIPF] + [Setting(4, zipf) for zipf in (0.0, 1.0, 2.0)]


def measure_decode(bench: Bench) -> Metrics:
    """As many decode GPUs as models, on both sides; then half of them for SUN."""
    settings = {label(setting): setting for setting in decode_settings(bench.quick)}
    wanted: dict[str, tuple[Setting, Arrangement, float]] = {}
    for name, setting in settings.items():
        n = setting.models
        wanted[f"dedicated {name}"] = setting, dedicated(setting, n), dedicated_guess(setting, n)
        wanted[f"sun {name}"] = setting, sun(setting, n, n), SEARCH_FROM * n
    found = limits(bench, wanted)
    metrics: Metrics = {}
    gains: list[float] = []
    for name, setting in settings.items():
        one, other = found[f"sun {name}"], found[f"dedicated {name}"]
        gains.append(ratio(one, other))
        per_gpu = middle(one) / setting.models, middle(other) / setting.models
        metrics[f"sun_decode_{name}_goodput_per_gpu"] = higher(per_gpu[0], "req/s", peer=per_gpu[1])
        metrics[f"sun_decode_{name}_gain"] = higher(gains[-1], "x")
    metrics["sun_decode_gain_up_to"] = higher(max(gains), "x", goal=2.0)
    rates = {name: middle(found[f"dedicated {name}"]) for name in settings}
    return metrics | _same_load(bench, settings, rates)


def _same_load(bench: Bench, settings: Mapping[str, Setting], rates: Mapping[str, float]) -> Metrics:
    """At the load that the dedicated cluster just carries, and at a tenth of it."""
    duration_s = 8.0 if bench.quick else assumed.SUN_DURATION_S
    runs = {}
    for name, setting in settings.items():
        n = setting.models
        sides = {
            "dedicated": dedicated(setting, n),
            "sun": sun(setting, n, n),
            "half": sun(setting, n, n // 2),
        }
        for side, arrangement in sides.items():
            for load, share in (("limit", 1.0), ("low", 0.1)):
                runs[f"{side} {load} {name}"] = partial(
                    setting.run, arrangement, rates[name] * share, duration_s
                )
    ran = bench.over_seeds(execute, runs)
    metrics: Metrics = {}
    worst: dict[str, list[float]] = {"half_tokens": [], "half_tpot": [], "same_tpot": []}
    for name in settings:
        for load in ("limit", "low"):
            base, same, half = (ran[f"{side} {load} {name}"] for side in ("dedicated", "sun", "half"))
            for side, mine in (("same", same), ("half", half)):
                metrics[f"sun_{side}_gpus_{load}_{name}_tpot_p50"] = lower(
                    middle(tpot_p50(mine)), "ms", peer=middle(tpot_p50(base))
                )
            if load == "limit":
                tokens = ratio(tokens_per_s(half), tokens_per_s(base))
                metrics[f"sun_half_gpus_{name}_throughput_ratio"] = higher(tokens, "x")
                good = middle([each.summary.good_share for each in half])
                metrics[f"sun_half_gpus_{name}_good_share"] = higher(good * 100, "%")
                worst["half_tokens"].append(tokens)
                worst["half_tpot"].append(ratio(tpot_p50(half), tpot_p50(base)))
                worst["same_tpot"].append(ratio(tpot_p50(same), tpot_p50(base)))
    metrics["sun_half_gpus_throughput_ratio_worst"] = higher(min(worst["half_tokens"]), "x", goal=0.98)
    metrics["sun_half_gpus_tpot_ratio_worst"] = lower(max(worst["half_tpot"]), "x", goal=1.05)
    metrics["sun_half_gpus_tpot_ratio_best"] = lower(min(worst["half_tpot"]), "x")
    metrics["sun_same_gpus_tpot_ratio_worst"] = lower(max(worst["same_tpot"]), "x", goal=1.05)
    return metrics
