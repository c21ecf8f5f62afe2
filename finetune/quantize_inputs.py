"""What a layer's linear maps are fed: moments of their inputs over calibration prompts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_BATCH = 32


@dataclass(slots=True)
class Moments:
    """Sums over all calibration tokens: `second` of `x x^T` `[in, in]`, `first` of `|x|` `[in]`, `tokens`."""

    second: Tensor
    first: Tensor
    tokens: int = 0

    def add(self, inputs: Tensor) -> None:
        """Count `[..., in]` in."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        self.second += rows.T @ rows
        self.first += rows.abs().sum(dim=0)
        self.tokens += len(rows)

    def divided(self, scale: Tensor) -> "Moments":
        """The moments of `x / scale`."""
        return Moments(self.second / torch.outer(scale, scale), self.first / scale, self.tokens)


@torch.inference_mode()
def input_moments(
    model: PreTrainedModel, maps: Mapping[str, nn.Linear], prompts: Sequence[Sequence[int]]
) -> dict[str, Moments]:
    """The moments of each map's inputs, by its name.

    Runs the whole model once per call. Called layer by layer it costs layers x passes, and lets each layer
    see the quantized layers before it while only one layer's moments are in memory.
    """
    moments = {name: _empty(linear) for name, linear in maps.items()}
    hooks = [
        linear.register_forward_pre_hook(lambda _, args, into=moments[name]: into.add(args[0]))
        for name, linear in maps.items()
    ]
    try:
        for batch in _batches(prompts):
            model.base_model(input_ids=batch, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return moments


def _batches(prompts: Sequence[Sequence[int]]) -> Iterable[Tensor]:
    """Prompts of one length together: padding would count in the moments."""
    for _, group in groupby(sorted(prompts, key=len), key=len):
        rows = [list(prompt) for prompt in group]
        for start in range(0, len(rows), _BATCH):
            yield torch.tensor(rows[start : start + _BATCH])


def _empty(linear: nn.Linear) -> Moments:
    return Moments(torch.zeros(linear.in_features, linear.in_features), torch.zeros(linear.in_features))
