"""From samples to figures: how far off the roofline is, and how fast the GPU was."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from benchmarks.gpu_sweep import Copies
from benchmarks.report import Metric
from simulator.timing import (
    Corrections,
    DecodeSample,
    Geometry,
    HandoffSample,
    RelativeError,
    Roofline,
    Samples,
    accuracy,
    correct,
)

GOAL_PERCENT = 15.0
"""Simulated against measured, as everywhere."""

SMALL_BATCH = 16
"""Up to here an int4 product reads weights and little else, whoever wrote its kernel."""


@dataclass(frozen=True)
class Measured:
    """A whole run. `int4` is None where its kernel does not run."""

    geometry: Geometry
    samples: Samples
    int4: Samples | None
    copies: Copies


def figures(measured: Measured, roofline: Roofline | None) -> dict[str, Metric]:
    """All of them; without a roofline, which is of a GPU without a datasheet, only rates. Keys are stable.

    The corrections are fitted to the 16 bit samples alone: int4 is foretold from fewer bytes.
    """
    metrics = _rates(measured, roofline)
    if roofline is None:
        return metrics
    found = correct(measured.samples, roofline)
    return _errors(measured, roofline, replace(roofline, corrections=found)) | metrics | _fitted(found)


def _errors(measured: Measured, before: Roofline, after: Roofline) -> dict[str, Metric]:
    """Median relative errors in percent; the peer is the roofline with nobody's measurements."""
    samples = {"": measured.samples}
    if measured.int4 is not None:
        small = tuple(each for each in measured.int4.decode if each.requests <= SMALL_BATCH)
        samples |= {"int4_": measured.int4, f"int4_batch_to_{SMALL_BATCH}_": Samples(decode=small)}
    metrics = {}
    for prefix, group in samples.items():
        bits = 4 if prefix else before.weight_bits
        then, now = (accuracy(replace(each, weight_bits=bits), group) for each in (before, after))
        for what in ("decode", "prefill"):
            old, new = (_percent(getattr(each, what)) for each in (then, now))
            if new is not None:
                goal = None if prefix else GOAL_PERCENT
                key = f"{prefix}{what}_error_median"
                metrics[key] = Metric(value=new, unit="%", better="lower", goal=goal, peer=old)
    return metrics


def _percent(error: RelativeError | None) -> float | None:
    return None if error is None else error.median * 100


def _rates(measured: Measured, roofline: Roofline | None) -> dict[str, Metric]:
    """The best that was reached; the peer is the datasheet's."""
    shape, gpu = measured.geometry, None if roofline is None else roofline.gpu
    memory = None if gpu is None else gpu.memory_gb_per_s
    metrics = {
        "decode_memory_rate": _gb_per_s(_decode_rates(shape, 16, measured.samples.decode), memory),
        "decode_kv_rate": _gb_per_s(_kv_rates(shape, measured.samples.decode), memory),
        "prefill_compute_rate": _best(
            (
                (
                    shape.linear_flops(each.new_tokens)
                    + shape.attention_flops(each.new_tokens, each.cached_tokens)
                )
                / each.ms
                / 1e9
                for each in measured.samples.prefill
            ),
            "TFLOPS",
            None if gpu is None else gpu.tflops_16,
        ),
        # A copy reads each byte and writes it.
        "copy_within_device_rate": _gb_per_s(
            (2 * rate for rate in _copy_rates(measured.copies.within_device)), memory
        ),
        "copy_from_device_rate": _gb_per_s(_copy_rates(measured.copies.from_device), None),
        "copy_to_device_rate": _gb_per_s(_copy_rates(measured.copies.to_device), None),
    }
    if measured.int4 is not None:
        metrics["int4_decode_memory_rate"] = _gb_per_s(_decode_rates(shape, 4, measured.int4.decode), memory)
        metrics["int4_batch_1_speedup"] = _speedup(measured)
    return {key: metric for key, metric in metrics.items() if metric is not None}


def _decode_rates(shape: Geometry, bits: int, decode: Iterable[DecodeSample]) -> Iterable[float]:
    """Weights and KV over the time of the whole step."""
    weights = shape.linear_bytes(bits) + shape.lm_head_bytes(bits)
    return (
        (weights + shape.kv_bytes_per_token() * each.context_tokens) / each.step_ms / 1e6 for each in decode
    )


def _kv_rates(shape: Geometry, decode: Iterable[DecodeSample]) -> Iterable[float]:
    """What more context takes longer, at the same batch: attention alone."""
    ordered = sorted(decode, key=lambda each: (each.requests, each.context_tokens))
    for less, more in pairwise(ordered):
        if less.requests == more.requests and more.step_ms > less.step_ms:
            kv_bytes = shape.kv_bytes_per_token() * (more.context_tokens - less.context_tokens)
            yield kv_bytes / (more.step_ms - less.step_ms) / 1e6


def _copy_rates(samples: Iterable[HandoffSample]) -> Iterable[float]:
    return (each.num_bytes / each.ms / 1e6 for each in samples)


def _speedup(measured: Measured) -> Metric | None:
    """16 bits over 4, one request and the shortest context that both have."""
    times = [
        {each.context_tokens: each.step_ms for each in samples.decode if each.requests == 1}
        for samples in (measured.samples, measured.int4)
        if samples is not None
    ]
    common = set.intersection(*map(set, times))
    if not common:
        return None
    dense, int4 = (each[min(common)] for each in times)
    return Metric(value=dense / int4, unit="ratio", better="higher")


def _gb_per_s(rates: Iterable[float], peer: float | None) -> Metric | None:
    return _best(rates, "GB/s", peer)


def _best(rates: Iterable[float], unit: str, peer: float | None) -> Metric | None:
    best = max(rates, default=None)
    return None if best is None else Metric(value=best, unit=unit, better="higher", peer=peer)


def _fitted(found: Corrections) -> dict[str, Metric]:
    """The corrections that steps and copies depend on; the peer is what is assumed without them."""
    assumed = Corrections()
    units = {
        "step_overhead_ms": "ms",
        "per_request_ms": "ms",
        "memory_efficiency": "share",
        "compute_efficiency": "share",
        "attention_efficiency": "share",
    }
    return {
        f"fitted_{name}": Metric(
            value=getattr(found, name),
            unit=unit,
            better="lower" if unit == "ms" else "higher",
            peer=getattr(assumed, name),
        )
        for name, unit in units.items()
    }
