"""AWQ: inputs that are large are scaled up in the weight, and down before it (Lin et al., arXiv 2306.00978).

The factor goes into what comes before, and that decides what a *shared* decode module may fold:

    input norm  -> q, k, v      k and v themselves stay what they were
    second norm -> gate, up     inside the layer
    up          -> down         inside the layer
    v           -> o            NEVER: it would scale V, which a prefill module of the family writes
    q against k                 NEVER: it would scale K

`finetune.quantize_check` holds it. A version of our own for the reason in `finetune.quantize_gptq`; and
llm-compressor's (0.13 to 0.14.0.1) pins memory, which fails on a machine without an accelerator.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from finetune.quantize_grid import Grid
from finetune.quantize_inputs import Moments

_STEPS = 20


def fold_best_scale(previous: nn.Module, maps: Sequence[nn.Linear], moments: Moments, grid: Grid) -> Tensor:
    """Search one factor per input that `maps` share, fold it into them and `previous`, and return it `[in]`.

    `previous` is an RMS norm or a linear map without a non-linearity in between; its output is divided. In
    full precision the layer computes what it did before.
    """
    scale = _best_scale([linear.weight.data for linear in maps], moments, grid)
    if isinstance(previous, nn.Linear):
        previous.weight.data /= scale[:, None]
        if previous.bias is not None:
            previous.bias.data /= scale
    else:
        previous.get_parameter("weight").data /= scale
    for linear in maps:
        linear.weight.data *= scale
    return scale


def _best_scale(weights: Sequence[Tensor], moments: Moments, grid: Grid) -> Tensor:
    """`argmin_s |Q(W s) s^-1 X - W X|` with `s = mean|x|^a`, `a` in 0 ... 0.95 (equations 4 and 5)."""
    magnitude = (moments.first / moments.tokens).clamp(min=1e-4)
    candidates = [_normalized(magnitude ** (step / _STEPS)) for step in range(_STEPS)]
    losses = [
        sum(output_error(_rounded(weight, scale, grid), weight, moments) for weight in weights)
        for scale in candidates
    ]
    return candidates[min(range(_STEPS), key=lambda step: losses[step])]


def output_error(rounded: Tensor, weight: Tensor, moments: Moments) -> float:
    """`|rounded X - W X|^2`, summed over the calibration tokens."""
    difference = rounded - weight
    return float(((difference @ moments.second) * difference).sum())


def _rounded(weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    found = grid.nearest(weight * scale)
    return grid.values(found.codes, found.scale) / scale


def _normalized(scale: Tensor) -> Tensor:
    """Around 1, as the authors' code does, so that the norm's weight keeps its size."""
    return scale / torch.sqrt(scale.max() * scale.min())
