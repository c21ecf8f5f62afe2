"""GPTQ: each column's rounding error is paid back by the columns after it (Frantar et al., arXiv 2210.17323).

A version of our own, because no release of llm-compressor fits beside vLLM 0.32, which pins
compressed-tensors 0.17: 0.12 fails on transformers 5.19, 0.13 and 0.14 need compressed-tensors 0.18 and 0.19.
"""

from dataclasses import replace

import torch
from torch import Tensor

from finetune.quantize_grid import Codes, Grid
from heliostat.errors import HeliostatError

_DAMPING = 0.01
"""Share of the mean diagonal that is added to it, as in the paper: few samples leave `H` singular."""


def gptq(weight: Tensor, second_moment: Tensor, grid: Grid) -> Codes:
    """Quantize `[out, in]`, given the sum of `x x^T` over its inputs, `[in, in]` (Algorithm 1).

    Columns go in their order (no activation ordering); a group's scale is set when its first column is
    reached. Raises HeliostatError where the moments are unusable.
    """
    weight = weight.clone()
    upper = _inverse_root(second_moment)
    single = replace(grid, group_size=1)
    codes, scales = [], []
    for start in range(0, weight.shape[1], grid.group_size):
        end = start + grid.group_size
        block, root = weight[:, start:end], upper[start:end, start:end]
        scale = grid.scale(block)
        errors = torch.empty_like(block)
        for column in range(grid.group_size):
            code = single.codes(block[:, column, None], scale)
            error = (block[:, column, None] - single.values(code, scale)) / root[column, column]
            block[:, column + 1 :] -= error @ root[None, column, column + 1 :]
            errors[:, column, None] = error
            codes.append(code)
        weight[:, end:] -= errors @ upper[start:end, end:]
        scales.append(scale)
    return Codes(torch.cat(codes, dim=1), torch.cat(scales, dim=1))


def _inverse_root(second_moment: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped moments, in float64 and back."""
    wide = second_moment.double()
    wide = wide + _DAMPING * wide.diagonal().mean() * torch.eye(len(wide), dtype=torch.float64)
    root, failed = torch.linalg.cholesky_ex(wide)
    if not failed:
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(root), upper=True)
    if failed:
        raise HeliostatError("gptq: the calibration prompts give no usable statistics; give more of them")
    narrow: Tensor = upper.float()
    return narrow
