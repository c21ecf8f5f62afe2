"""One run of `benchmarks.gpu_calibrate`: measure, fit, write the files, print the table."""

import re
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_decoder import EAGER, Decoder, ElementWise, fused, fusing_obstacle
from benchmarks.gpu_figures import Measured, figures
from benchmarks.gpu_linear import int4_obstacle
from benchmarks.gpu_sweep import (
    TINY,
    TINY_GEOMETRY,
    WHOLE,
    Plan,
    Prompt,
    copies,
    decode_samples,
    kv_room,
    prefill_samples,
)
from benchmarks.report import RESULTS, Report, commit, machine, render, write_json
from heliostat.errors import HeliostatError
from simulator.timing import GPUS, KNOWN, Calibration, Geometry, Roofline, Samples, Setup

TABLE_WIDTH = 110
"""Where no terminal says how wide it is."""

OTHER_BOARDS = {"PCIE", "NVL", "40GB"}
"""Words in a GPU's name that mean another datasheet than the SXM one in `GPUS`."""

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}

log = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `benchmarks.gpu_calibrate.parser`."""

    device: str
    geometry: str
    layers: int | None
    attention: str
    eager: bool
    out: Path | None


def calibrate(request: Request) -> None:
    """Measure what is asked for and write it. Raises HeliostatError."""
    device = _device(request.device)
    model, geometry = _geometry(request)
    plan = TINY if request.geometry == "tiny" else WHOLE
    fusing = _element_wise(request, device)
    with _attention(request.attention):
        samples = _steps(geometry, device, plan, 16, fusing)
        int4 = None
        if obstacle := int4_obstacle(device):
            log.print(f"int4 left out: {obstacle}")
        else:
            int4 = _steps(geometry, device, plan, 4, fusing)
    copied = copies(device, plan.copies, plan.repetitions, log.print)
    samples = samples.model_copy(update={"handoff": copied.to_device})
    setup = _setup(device, model, geometry, request, fused=fusing is not EAGER)
    out = (
        request.out or RESULTS / f"calibration-{(setup.gpu or _name(device)).lower().replace(' ', '-')}.json"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    Calibration.of(setup, samples).save(out)
    if int4 is not None:
        beside = out.with_name(f"{out.stem}-int4{out.suffix}")
        Calibration.of(setup.model_copy(update={"weight_bits": 4}), int4).save(beside)
    roofline = None if setup.gpu is None else Roofline(GPUS[setup.gpu.lower()], geometry)
    report = Report(
        machine=setup.machine,
        commit=_commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        rounds=plan.repetitions.most,
        metrics=figures(Measured(geometry, samples, int4, copied), roofline),
    )
    write_json(report, out.with_name("gpu_calibrate.json"))
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
    render(report, console, title=f"{model}, {setup.machine}", value="measured", peer="datasheet")


def _steps(
    geometry: Geometry, device: torch.device, plan: Plan, bits: int, element_wise: ElementWise
) -> Samples:
    """All steps of a model of so many bits, which is gone from the device afterwards."""
    log.print(f"weights of {bits} bits")
    contexts = plan.contexts if bits == 16 else plan.int4_contexts
    prompts: tuple[Prompt, ...] = plan.prompts if bits == 16 else plan.int4_prompts
    room = kv_room(geometry, device, bits, plan)
    decoder = Decoder(geometry, device, room, weight_bits=bits, element_wise=element_wise)
    samples = Samples(
        decode=decode_samples(decoder, plan.batches, contexts, plan.repetitions, log.print),
        prefill=prefill_samples(decoder, prompts, plan.repetitions, log.print),
    )
    del decoder
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return samples


def _device(name: str) -> torch.device:
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise HeliostatError(
            "torch sees no CUDA device here; run on a machine that has one, or try the script with "
            "`--device cpu --geometry tiny --out FILE`"
        )
    return torch.device(name)


def _geometry(request: Request) -> tuple[str, Geometry]:
    """The model's name for the file, and the geometry that is measured."""
    known = {**KNOWN, "tiny": TINY_GEOMETRY}
    if request.geometry not in known:
        raise HeliostatError(f"no geometry `{request.geometry}`; there are {', '.join(known)}")
    if request.geometry != "tiny" and not request.device.startswith("cuda"):
        raise HeliostatError(f"{request.geometry} is too large for {request.device}: use `--geometry tiny`")
    whole = known[request.geometry]
    model = f"{request.geometry}, random weights"
    if request.layers is None or request.layers == whole.layers:
        return model, whole
    if not 0 < request.layers < whole.layers:
        raise HeliostatError(f"--layers {request.layers}: {request.geometry} has 1 to {whole.layers}")
    return f"{model}, {request.layers} of {whole.layers} layers", replace(whole, layers=request.layers)


def _element_wise(request: Request, device: torch.device) -> ElementWise:
    if request.eager or device.type != "cuda":
        return EAGER
    if obstacle := fusing_obstacle(device):
        log.print(f"element-wise kernels are not fused, so steps take longer: {obstacle}")
        return EAGER
    return fused()


def _attention(name: str) -> AbstractContextManager[None]:
    return sdpa_kernel(BACKENDS[name]) if name in BACKENDS else nullcontext()


def _setup(device: torch.device, model: str, geometry: Geometry, request: Request, *, fused: bool) -> Setup:
    versions = {"torch": str(torch.__version__)}
    if device.type == "cuda" and torch.version.cuda is not None:
        versions["cuda"] = torch.version.cuda
    how = f"CUDA graphs, {'fused' if fused else 'eager'} element-wise kernels, {request.attention} attention"
    return Setup(
        machine=f"{_name(device)}, {how}" if device.type == "cuda" else machine(),
        engine="torch",
        versions=versions,
        measured_on=datetime.now(UTC).date(),
        model=model,
        geometry=geometry,
        gpu=known_gpu(_name(device)),
    )


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def known_gpu(name: str) -> str | None:
    """The datasheet in `GPUS` of what a driver calls so, as in "NVIDIA H100 80GB HBM3"; None without one."""
    words = set(re.split(r"[\s-]+", name.upper()))
    if words & OTHER_BOARDS:
        return None
    return next((gpu.name for gpu in GPUS.values() if gpu.name in words), None)


def _commit() -> str:
    """A lent machine may have the files and no git."""
    try:
        return commit()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
