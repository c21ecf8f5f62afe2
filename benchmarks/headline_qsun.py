"""QSUN (arXiv 2603.02599): the shared decode pool with 4 bit weights, against the same pool with 16 bits.

In the timing model fewer bits are fewer bytes to read and nothing else: no faster arithmetic, and no cost of
turning 4 bits back into 16. So the gain is largest where a step is all weights, and vanishes where it is all
arithmetic or all KV.
"""

from functools import partial

from benchmarks import headline_assumptions as assumed
from benchmarks.headline_runs import Bench, Metrics, execute, higher, lower, middle, ratio
from benchmarks.headline_sun import SEARCH_FROM, Setting, sun, tokens_per_s, tpot_p50

LOADS = {"small": 0.1, "medium": 0.5, "large": 0.9, "saturated": 1.5}
"""Of what SUN's decode pool carries (`SEARCH_FROM` per GPU of an H100 and prompts of 1,024 tokens)."""

SETTINGS = {
    "": Setting(4),
    "_context_x4": Setting(4, context=4),
    "_a100": Setting(4, gpu=assumed.PREFILLSHARE_GPU),
}
SCALES = {"_context_x4": 0.4, "_a100": 0.6}
"""Of the load, where a GPU carries less."""


def measure(bench: Bench) -> Metrics:
    """Gains as SUN's TPOT over QSUN's, and QSUN's tokens/s over SUN's."""
    settings = {"": SETTINGS[""]} if bench.quick else SETTINGS
    duration_s = 6.0 if bench.quick else assumed.SUN_DURATION_S
    runs = {}
    for suffix, setting in settings.items():
        for load, share in LOADS.items():
            rate = SEARCH_FROM * setting.models * share * SCALES.get(suffix, 1.0)
            for topology in ("sun", "qsun"):
                arrangement = sun(setting, setting.models + 2, setting.models, topology)
                runs[f"{topology}{suffix} {load}"] = partial(setting.run, arrangement, rate, duration_s)
    ran = bench.over_seeds(execute, runs)
    metrics: Metrics = {}
    for suffix in settings:
        for load in LOADS:
            one, other = ran[f"qsun{suffix} {load}"], ran[f"sun{suffix} {load}"]
            name = f"qsun_{load}{suffix}"
            metrics[f"{name}_tpot_p50"] = lower(middle(tpot_p50(one)), "ms", peer=middle(tpot_p50(other)))
            metrics[f"{name}_tpot_gain"] = higher(ratio(tpot_p50(other), tpot_p50(one)), "x")
        one, other = ran[f"qsun{suffix} saturated"], ran[f"sun{suffix} saturated"]
        gain = ratio(tokens_per_s(one), tokens_per_s(other))
        metrics[f"qsun_saturated{suffix}_throughput"] = higher(
            middle(tokens_per_s(one)), "tok/s", peer=middle(tokens_per_s(other))
        )
        metrics[f"qsun_saturated{suffix}_throughput_gain"] = higher(gain, "x", None if suffix else 1.45)
    medium = metrics["qsun_medium_tpot_gain"]
    metrics["qsun_medium_tpot_gain"] = medium.model_copy(update={"goal": 1.45})
    return metrics
