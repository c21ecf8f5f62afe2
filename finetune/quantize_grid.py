"""The values that a weight of few bits can have: per row and group of inputs, integers times one scale.

They are exactly what vLLM 0.32's CPU kernel multiplies with (`cpu_gemm_wna16`): `q * scale`, rounded to the
run dtype. Measured: its output is bit for bit the product with these values, summed in a wider dtype.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Codes:
    """A quantized weight: `codes` int8 `[out, in]`, `scale` in the run dtype `[out, in / group size]`."""

    codes: Tensor
    scale: Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """Symmetric integers of `bits` bits, one scale for `group_size` inputs of a row, run in `dtype`.

    Integers go from -8 to 7 in 4 bits. A scale of max / 7.5 uses both ends, as compressed-tensors'
    `calculate_qparams` does, and clips a positive maximum by half a step. `exact_maximum` (max / 7) does not:
    AWQ wants it, as the channels that it protects become the maximum.
    """

    bits: int
    group_size: int
    dtype: torch.dtype
    exact_maximum: bool = False

    def scale(self, weight: Tensor) -> Tensor:
        """`[out, in]` to `[out, in / group size]` in the run dtype; the largest weight decides."""
        largest = weight.reshape(len(weight), -1, self.group_size).abs().amax(dim=2)
        top = 2 ** (self.bits - 1) - 1 if self.exact_maximum else (2**self.bits - 1) / 2
        scale = (largest / top).to(self.dtype)
        return torch.where(scale == 0, torch.ones_like(scale), scale)

    def codes(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The nearest integers, int8 `[out, in]`."""
        half: int = 2 ** (self.bits - 1)
        return (weight / self._wide(scale)).round().clamp(-half, half - 1).to(torch.int8)

    def values(self, codes: Tensor, scale: Tensor) -> Tensor:
        """What the kernel multiplies with, float32 `[out, in]`."""
        return (codes.float() * self._wide(scale)).to(self.dtype).float()

    def nearest(self, weight: Tensor) -> Codes:
        """Round to nearest (RTN)."""
        scale = self.scale(weight)
        return Codes(self.codes(weight, scale), scale)

    def _wide(self, scale: Tensor) -> Tensor:
        return scale.float().repeat_interleave(self.group_size, dim=1)
