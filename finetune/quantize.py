"""Makes QSUN's decode module: the base in few bits, with nothing trained (arXiv 2603.02599).

Prefill modules are then trained against it (`finetune.quantize_load.load_dequantized`), and vLLM runs it as a
decode pool. vLLM 0.32's CPU kernel runs 4 bits in bfloat16 or float16, not float32, and the KV dtype is one
for all pools of a spec: such a spec says `dtype: bfloat16`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import torch
from transformers import PreTrainedModel

from finetune.data import make_encoder, read_samples
from finetune.quantize_check import check_keys_values
from finetune.quantize_grid import Grid
from finetune.quantize_layers import ARCHITECTURES, MAPS, Quantized, QuantizeMethod, quantize_layers
from finetune.quantize_load import is_quantized, load_dequantized
from finetune.quantize_write import new_folder, write_checkpoint
from finetune.reference import load_module
from finetune.settings import DataSettings
from heliostat.errors import HeliostatError
from kvtransfer.card import Method, ModuleCard, write_card
from kvtransfer.contract import check_contract, read_module

SERVED_BITS = 4
"""What vLLM 0.32's `CPUWNA16LinearKernel` runs; other widths are for experiments with training."""

_SIZE_UNIT = 32
"""Sizes of a linear map must be multiples of it, for the same kernel."""


@dataclass(frozen=True, slots=True)
class QuantizeSettings:
    """How to quantize; `samples` is how many calibration prompts are read, `dtype` what vLLM will run in."""

    method: QuantizeMethod = QuantizeMethod.AWQ
    bits: int = SERVED_BITS
    group_size: int = 32
    samples: int = 128
    dtype: torch.dtype = torch.bfloat16

    @property
    def grid(self) -> Grid:
        """The values that weights may have."""
        return Grid(self.bits, self.group_size, self.dtype)


def quantize(
    base: Path,
    out: Path,
    settings: QuantizeSettings,
    data: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> ModuleCard:
    """Write the base in few bits to `out`, with its card; `data` is a JSONL file of calibration prompts.

    What was written is read back and held against the base before it gets its name. Raises HeliostatError,
    and then leaves nothing behind.
    """
    if settings.method.needs_prompts and data is None:
        raise HeliostatError(
            f"--method {settings.method} needs calibration prompts: add --data FILE.jsonl, or take rtn"
        )
    source = read_module(base)
    if source.contract.architecture not in ARCHITECTURES:
        raise HeliostatError(
            f"{base / 'config.json'}: `architectures` is {source.contract.architecture}; quantized can be: "
            + ", ".join(ARCHITECTURES)
        )
    if is_quantized(base):
        raise HeliostatError(f"{base / 'config.json'}: is quantized already; give the base in full precision")
    with new_folder(out) as folder:
        model = load_module(base).eval()
        _check_sizes(base, model, settings.group_size)
        prompts: list[list[int]] = []
        if data is not None and settings.method.needs_prompts:
            samples = read_samples(DataSettings(str(data)), make_encoder(base), sys.maxsize, 0).train
            prompts = [[*prompt, *response] for prompt, response in samples[: settings.samples]]
        found = quantize_layers(model, settings.method, settings.grid, prompts, progress)
        codes = {name: quantized.codes for name, quantized in found.items()}
        write_checkpoint(base, folder, model, codes, settings.grid)
        del model, codes
        check_keys_values(load_module(base), load_dequantized(folder), settings.dtype)
        check_contract("the base", source.contract, "the quantized module", read_module(folder).contract)
        card = _card(source.weights, source.contract.tokenizer, settings, found, len(prompts))
        write_card(folder, card)
    return card


def _check_sizes(base: Path, model: PreTrainedModel, group_size: int) -> None:
    for name in MAPS:
        linear = model.base_model.layers[0].get_submodule(name)
        if linear.in_features % group_size:
            raise HeliostatError(
                f"{base}: {name} has {linear.in_features} inputs, not a multiple of --group-size {group_size}"
            )
        for kind, size in (("inputs", linear.in_features), ("outputs", linear.out_features)):
            if size % _SIZE_UNIT:
                raise HeliostatError(
                    f"{base}: {name} has {size} {kind}; vLLM's kernel needs a multiple of {_SIZE_UNIT}, "
                    "so this base cannot be served quantized"
                )


def _card(
    weights: str, tokenizer: str, settings: QuantizeSettings, found: dict[str, Quantized], prompts: int
) -> ModuleCard:
    metrics = {
        "bits": float(settings.bits),
        "group_size": float(settings.group_size),
        "mean_relative_weight_error": fmean(one.weight_error for one in found.values()),
    }
    outputs = [one.output_error for one in found.values() if one.output_error is not None]
    if outputs:
        metrics["mean_relative_output_error"] = fmean(outputs)
    return ModuleCard(
        method=Method.QUANTIZED,
        role="decode",
        kind="weights",
        base=weights,
        tokenizer=tokenizer,
        metrics=metrics,
        training={
            "method": settings.method.value,
            "dtype": str(settings.dtype).removeprefix("torch."),
            "samples": prompts,
            "compressed-tensors": version("compressed-tensors"),
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
    )
