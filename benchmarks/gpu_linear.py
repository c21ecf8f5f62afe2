"""Linear layers of random weights: 16 bit ones, and 4 bit ones through torch's own weight-only kernel.

`torch._weight_int4pack_mm` is tinygemm's kernel as PyTorch ships it: made for small batches, and the only
int4 product that needs nothing but torch. Engines have others (Marlin), which hold up in larger batches.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

TILES = {"cuda": 8, "cpu": 2}
"""`innerKTiles` of the packed layout; a device that is missing here has no such kernel."""

ZERO_POINT = 8
"""Of torch's layout: a weight is `(q - 8) * scale + zero`, q from 0 to 15."""


class Linear(Protocol):
    """[rows, in] to [rows, out], in the dtype of the rows."""

    def __call__(self, rows: Tensor) -> Tensor: ...


class DenseLinear:
    """Weights of 16 bits (or whatever `dtype` has), normal with the variance that keeps that of the rows."""

    def __init__(self, rows_in: int, rows_out: int, device: torch.device, dtype: torch.dtype) -> None:
        self.weight = random_tensor((rows_out, rows_in), rows_in**-0.5, device, dtype)

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self.weight)


class Int4Linear:
    """Weights of 4 bits with a scale and a zero of 16 bits per group, as in AWQ and GPTQ checkpoints."""

    def __init__(self, rows_in: int, rows_out: int, device: torch.device) -> None:
        self.group = 128 if rows_in % 128 == 0 else 32
        shape = (rows_out, rows_in)
        self.cuda = device.type == "cuda"
        if self.cuda:  # two weights in a byte
            halves = torch.randint(0, 256, (rows_out, rows_in // 2), dtype=torch.uint8, device=device)
            self.packed = torch._convert_weight_to_int4pack(halves, TILES["cuda"])
        else:
            integers = torch.randint(0, 16, shape, dtype=torch.int32, device=device)
            self.packed = torch._convert_weight_to_int4pack_for_cpu(integers, TILES["cpu"])
        self.scales = torch.zeros((rows_in // self.group, rows_out, 2), dtype=torch.bfloat16, device=device)
        # q - 8 has a deviation of about 4.6.
        self.scales[..., 0] = rows_in**-0.5 / 4.6

    def __call__(self, rows: Tensor) -> Tensor:
        if self.cuda:
            return torch._weight_int4pack_mm(rows, self.packed, self.group, self.scales)
        return torch._weight_int4pack_mm_for_cpu(rows, self.packed, self.group, self.scales)


def random_tensor(
    shape: tuple[int, ...], deviation: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Normal numbers, made on the device. Not zeros: a GPU multiplies these faster than any real weights."""
    return torch.empty(shape, device=device, dtype=dtype).normal_(std=deviation)


def int4_obstacle(device: torch.device) -> str | None:
    """Why 4 bit layers cannot be measured on this device; None if they can."""
    if device.type not in TILES:
        return f"torch has no int4 product for {device.type}"
    names = ("_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu")
    if not hasattr(torch, names[device.type == "cpu"]):
        return f"torch {torch.__version__} has no {names[device.type == 'cpu']}"
    try:
        rows = torch.ones((1, 128), dtype=torch.bfloat16, device=device)
        Int4Linear(128, 64, device)(rows).sum().item()
    except RuntimeError as error:  # what torch raises for a chip or a build without the kernel
        return f"torch's int4 product does not run here: {str(error).splitlines()[0]}"
    return None
