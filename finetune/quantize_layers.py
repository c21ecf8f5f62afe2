"""Quantizes a Llama-like model in memory, layer by layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from torch import nn
from transformers import PreTrainedModel

from finetune.quantize_awq import fold_best_scale, output_error
from finetune.quantize_gptq import gptq
from finetune.quantize_grid import Codes, Grid
from finetune.quantize_inputs import Moments, input_moments

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Same names, same order of norms, plain RMS norms: what folding and the check of K and V rely on."""

MAPS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)

_FOLDS = (
    ("input_layernorm", MAPS[:3]),
    ("post_attention_layernorm", MAPS[4:6]),
    ("mlp.up_proj", MAPS[6:]),
)
"""Where AWQ may put its factors; see `finetune.quantize_awq` for what is left out, and why."""


class QuantizeMethod(StrEnum):
    """How weights are rounded; all three write the same format."""

    AWQ = "awq"
    GPTQ = "gptq"
    RTN = "rtn"

    @property
    def needs_prompts(self) -> bool:
        """Whether it looks at what the layers are fed."""
        return self is not QuantizeMethod.RTN


@dataclass(frozen=True, slots=True)
class Quantized:
    """One linear map: its codes, and relative errors of weight and output (None without prompts).

    AWQ's weight error is relative to the folded weight.
    """

    codes: Codes
    weight_error: float
    output_error: float | None


def quantize_layers(
    model: PreTrainedModel,
    method: QuantizeMethod,
    grid: Grid,
    prompts: Sequence[Sequence[int]],
    progress: Callable[[float], None],
) -> dict[str, Quantized]:
    """Every linear map of every layer, by its name in the checkpoint; embeddings and output head stay.

    The model's weights become the values of the codes, so later layers are fitted to what earlier ones give.
    `progress` is told the share that is done.
    """
    grid = replace(grid, exact_maximum=method is QuantizeMethod.AWQ)
    found: dict[str, Quantized] = {}
    layers = model.base_model.layers
    for number, layer in enumerate(layers):
        maps = {name: layer.get_submodule(name) for name in MAPS}
        moments = input_moments(model, maps, prompts) if method.needs_prompts else {}
        if method is QuantizeMethod.AWQ:
            moments = _fold(layer, maps, moments, grid)
        for name, linear in maps.items():
            key = f"{model.base_model_prefix}.layers.{number}.{name}"
            found[key] = _quantize(linear, method, grid, moments.get(name))
        progress((number + 1) / len(layers))
    return found


def _fold(
    layer: nn.Module, maps: Mapping[str, nn.Linear], moments: Mapping[str, Moments], grid: Grid
) -> dict[str, Moments]:
    after = dict(moments)
    for previous, names in _FOLDS:
        scale = fold_best_scale(
            layer.get_submodule(previous), [maps[name] for name in names], moments[names[0]], grid
        )
        after |= {name: moments[name].divided(scale) for name in names}
    return after


def _quantize(linear: nn.Linear, method: QuantizeMethod, grid: Grid, moments: Moments | None) -> Quantized:
    weight = linear.weight.data
    use_gptq = method is QuantizeMethod.GPTQ and moments is not None
    codes = gptq(weight, moments.second, grid) if use_gptq and moments else grid.nearest(weight)
    values = grid.values(codes.codes, codes.scale)
    error = None
    if moments is not None:
        error = (output_error(values, weight, moments) / output_error(values * 0, weight, moments)) ** 0.5
    linear.weight.data = values
    return Quantized(codes, float((values - weight).norm() / weight.norm()), error)
