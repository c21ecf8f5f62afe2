"""Corrections of a roofline from steps measured on its GPU, so that a calibration holds for more than one
model: another geometry or other weight bits change bytes and FLOPs, not how well the GPU is used."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from heliostat.errors import HeliostatError
from simulator.timing.base import Chunk
from simulator.timing.corrections import Corrections
from simulator.timing.least_squares import Matrix, fit_relative
from simulator.timing.roofline import Kernel, Roofline
from simulator.timing.samples import Samples

ROUNDS = 20
"""Of fitting and asking again which kernels are bound by memory; two or three are enough when it settles."""

_OVERHEAD, _REQUEST, _MEMORY, _COMPUTE, _ATTENTION = range(5)


def correct(samples: Samples, roofline: Roofline) -> Corrections:
    """The corrections with which `roofline`, of the GPU and module that were measured, is nearest to samples.

    Which of its two limits binds a kernel depends on the efficiencies, and these on it: so each round takes
    the limits from the last round's corrections, and what remains is linear in the overheads and in one
    over each efficiency. An efficiency that no sample depends on keeps the value that `roofline` has, and so
    does all that concerns all-reduces. Raises HeliostatError without samples of steps.
    """
    steps = [(each.requests, each.context_tokens, (), each.step_ms) for each in samples.decode]
    prompts = [(0, 0, (Chunk(each.new_tokens, each.cached_tokens),), each.ms) for each in samples.prefill]
    measured: list[tuple[int, int, tuple[Chunk, ...], float]] = [*steps, *prompts]
    if not measured:
        raise HeliostatError("no decode and no prefill sample: there is nothing to correct a roofline with")
    kernels = [
        [*roofline.kernels(requests, chunks), roofline.context_kernel(context)]
        for requests, context, chunks, _ in measured
    ]
    # What all-reduces take is not fitted, so it is taken off.
    known_ms = [
        roofline.all_reduce_ms(roofline.rows(requests, chunks)) for requests, _, chunks, _ in measured
    ]
    times = np.array([each[3] for each in measured])
    left = np.maximum(times - np.array(known_ms), 1e-3 * times)
    best = found = roofline.corrections
    least = np.inf
    bound = np.zeros((0, 0))
    for _ in range(ROUNDS):
        features = np.array(
            [_features(each[0], work, found) for each, work in zip(measured, kernels, strict=True)]
        )
        if np.array_equal(features, bound):
            break
        bound = features
        found = _update(found, fit_relative(features, left), features)
        candidate = replace(roofline, corrections=found)
        predicted = [candidate.step_ms(*each[:3]) for each in measured]
        error = float(np.mean((np.array(predicted) / times - 1.0) ** 2))
        # Rounds may go back and forth over a kernel near the ridge; the nearest of them is the answer.
        if error < least:
            best, least = found, error
    return _correct_handoff(samples, replace(roofline, corrections=best))


def _features(requests: int, work: Iterable[Kernel], corrections: Corrections) -> list[float]:
    """One step, by what its time is proportional to. Compute-bound attention has its own efficiency."""
    row = [1.0, float(requests), 0.0, 0.0, 0.0]
    for kernel in work:
        by_compute = kernel._replace(memory_ms=0.0).ms(corrections)
        if kernel.ms(corrections) > by_compute:
            row[_MEMORY] += kernel.memory_ms
        else:
            row[_ATTENTION if kernel.attention else _COMPUTE] += kernel.compute_ms
    return row


def _update(old: Corrections, fitted: Matrix, features: Matrix) -> Corrections:
    changes = {"step_overhead_ms": float(fitted[_OVERHEAD])}
    if features[:, _REQUEST].any():
        changes["per_request_ms"] = float(fitted[_REQUEST])
    for name, column in (
        ("memory_efficiency", _MEMORY),
        ("compute_efficiency", _COMPUTE),
        ("attention_efficiency", _ATTENTION),
    ):
        if fitted[column] > 0.0:
            changes[name] = float(1.0 / fitted[column])
    return old.model_copy(update=changes)


def _correct_handoff(samples: Samples, roofline: Roofline) -> Corrections:
    corrections = roofline.corrections
    if not samples.handoff:
        return corrections
    ideal = replace(
        roofline,
        corrections=corrections.model_copy(update={"handoff_latency_ms": 0.0, "handoff_efficiency": 1.0}),
    )
    # As in `fit`: what a single size does not tell apart is bandwidth.
    slowdown, latency_ms = fit_relative(
        np.array([(ideal.handoff_ms(each.num_bytes), 1.0) for each in samples.handoff]),
        np.array([each.ms for each in samples.handoff]),
    )
    changes = {"handoff_latency_ms": float(latency_ms)}
    if slowdown > 0.0:
        changes["handoff_efficiency"] = float(1.0 / slowdown)
    return corrections.model_copy(update=changes)
