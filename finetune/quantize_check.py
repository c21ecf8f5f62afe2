"""Does a quantized decode module still read and write the family's K and V?

A shared decode module reads K and V of prefill modules that know nothing of it. A factor moved from v to o,
or between q and k, leaves the module's own answers alone and breaks every pair, with no error at run time.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from heliostat.errors import HeliostatError

_LARGEST_GAIN = 1.25
"""Rounding moves a channel's gain too: to 0.96 ... 1.03 at 4 bits and 0.91 ... 1.06 at 3 (quickstart base,
three methods); at 2 bits to 0.78, which is refused. A factor smaller than this goes unseen."""


def check_keys_values(base: PreTrainedModel, quantized: PreTrainedModel, dtype: torch.dtype) -> None:
    """Raise HeliostatError that names the first channel of K or V that is not the base's, up to rounding.

    Compares what norm and projection do together, so factors between these two cancel. `dtype` is the run
    dtype: biases and norms of K must be the base's, rounded to it.
    """
    pairs = zip(base.base_model.layers, quantized.base_model.layers, strict=True)
    for number, (before, after) in enumerate(pairs):
        for name in ("k_proj", "v_proj"):
            gains = _gains(_effect(before, name), _effect(after, name))
            wrong = ((gains > _LARGEST_GAIN) | (gains < 1 / _LARGEST_GAIN)).nonzero().flatten()
            if len(wrong):
                channel = int(wrong[0])
                raise HeliostatError(
                    f"layer {number}, {name}, channel {channel}: the quantized module writes it "
                    f"{float(gains[channel]):.2f} times as large as the base, so prefill modules of the "
                    "family cannot feed it; do not fold factors into k or v"
                )
        _check_equal(number, before, after, dtype)


def _effect(layer: nn.Module, name: str) -> Tensor:
    weight = layer.get_parameter(f"self_attn.{name}.weight")
    norm = layer.get_parameter("input_layernorm.weight")
    return weight.detach().float() * norm.detach().float()


def _gains(before: Tensor, after: Tensor) -> Tensor:
    """By what factor each output channel grew: least squares, 1 for channels that are zero."""
    power = (before * before).sum(dim=1)
    gains = (before * after).sum(dim=1) / power.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(power == 0, torch.ones_like(gains), gains)


def _check_equal(number: int, before: nn.Module, after: nn.Module, dtype: torch.dtype) -> None:
    """What shapes K and V beside the two weights: biases, and the norm of K where there is one."""
    names = ("self_attn.k_proj.bias", "self_attn.v_proj.bias", "self_attn.k_norm.weight")
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    for name in names:
        if name in old and not torch.equal(old[name].to(dtype), new[name].to(dtype)):
            raise HeliostatError(
                f"layer {number}, {name}: not the base's, so K and V are not the family's; "
                "quantize the base itself"
            )
