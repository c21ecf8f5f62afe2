"""How long an engine takes: a roofline of its GPU and model, corrected by what was measured."""

from simulator.timing.base import Chunk, StepLine, Timing
from simulator.timing.calibrated import Calibrated, Coefficients, fit
from simulator.timing.calibration import Calibration, Setup, load_calibration
from simulator.timing.capacity import kv_capacity_tokens
from simulator.timing.checkpoints import KNOWN, geometry_of, kv_bits, weight_bits
from simulator.timing.corrections import Corrections
from simulator.timing.geometry import Geometry
from simulator.timing.hardware import A100, B200, GPUS, H100, H200, Gpu, gpu_named
from simulator.timing.linear import LinearTiming
from simulator.timing.roofline import Adapters, Roofline
from simulator.timing.roofline_fit import correct
from simulator.timing.samples import (
    Accuracy,
    DecodeSample,
    HandoffSample,
    PrefillSample,
    RelativeError,
    Samples,
    accuracy,
)
from simulator.timing.scaled import Scaled

__all__ = [
    "A100",
    "B200",
    "GPUS",
    "H100",
    "H200",
    "KNOWN",
    "Accuracy",
    "Adapters",
    "Calibrated",
    "Calibration",
    "Chunk",
    "Coefficients",
    "Corrections",
    "DecodeSample",
    "Geometry",
    "Gpu",
    "HandoffSample",
    "LinearTiming",
    "PrefillSample",
    "RelativeError",
    "Roofline",
    "Samples",
    "Scaled",
    "Setup",
    "StepLine",
    "Timing",
    "accuracy",
    "correct",
    "fit",
    "geometry_of",
    "gpu_named",
    "kv_bits",
    "kv_capacity_tokens",
    "load_calibration",
    "weight_bits",
]
