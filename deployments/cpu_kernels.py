"""What this host's CPU must have for the kernels of vLLM's CPU build (0.32)."""

import json
import platform
from pathlib import Path

import torch

from heliostat.errors import HeliostatError


def low_bit_problem(capability: str | None = None) -> str:
    """Why weights of few bits cannot run on this CPU; empty where they can.

    vLLM's CPU build holds `cpu_gemm_wna16` only in its library for AVX-512. On another x86 it loads weights
    of 4 bits without a word, and dies with the first request. `capability` is torch's word for the CPU.
    """
    capability = capability or torch.backends.cpu.get_cpu_capability()
    if platform.machine() != "x86_64" or capability == "AVX512":
        return ""
    return f"weights of few bits need AVX-512 in vLLM's CPU build, and this CPU has {capability}"


def check_low_bits(weights: Path, gpus: int, capability: str | None = None) -> None:
    """Raises HeliostatError where a pool without GPUs would run quantized weights that it cannot."""
    if gpus or "quantization_config" not in json.loads((weights / "config.json").read_text()):
        return
    if problem := low_bit_problem(capability):
        raise HeliostatError(
            f"{weights}: {problem}; use another CPU, a GPU, or weights that are not quantized"
        )
