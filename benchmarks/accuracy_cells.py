"""The cells of the accuracy table for one task and one seed: every way of sharing, trained and measured.

All modules see the same samples; steps and learning rates are those of docs/finetune.md. Nothing here is
tuned for a cell. Exact match is greedy and counts the end token (`finetune.exact_match`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune.cache_conditioned import TokenPair
from finetune.exact_match import exact_match
from finetune.quantize_load import load_dequantized
from finetune.recipes import train_pairs
from finetune.settings import Lora, Settings
from kvtransfer.card import Method

RANK = 32
"""Of all adapters. Prefill adapters of 16 learn `spell` to 65 % in 400 steps, those of 32 wholly (tried)."""

BATCH = 64


@dataclass(frozen=True)
class Inputs:
    """What a group of cells is trained from: `quantized` are decode modules by their bits."""

    base: Path
    quantized: dict[int, Path]
    seed: int
    train: Sequence[TokenPair]
    held_out: Sequence[TokenPair]
    steps: int = 200
    """Of SUN, QSUN and PrefillShare with all weights."""
    adapters: bool = True
    """Whether the cells of adapters are trained, too."""


def measure(inputs: Inputs) -> dict[str, float]:
    """Exact match in percent, by cell."""
    torch.set_num_threads(1)
    base = _load(inputs.base)
    cells = {"base": _pair(base, base, inputs)}
    full, cells["full"] = _train(inputs, Method.FULL, 120, 2e-3)
    cells["naive: full prefills, base decodes"] = _pair(full, base, inputs)
    cells["naive: base prefills, full decodes"] = _pair(base, full, inputs)
    sun, cells["sun"] = _train(inputs, Method.SUN, inputs.steps, 2e-3)
    if inputs.adapters:
        _, cells["sun lora"] = _train(inputs, Method.SUN, 400, 3e-3, lora=True)
    for bits, folder in inputs.quantized.items():
        cells[f"sun on int{bits}, untrained for it"] = _pair(sun, load_dequantized(folder), inputs)
        _, cells[f"qsun int{bits}"] = _train(inputs, Method.QSUN, inputs.steps, 2e-3, decode=folder)
    _, cells["prefillshare"] = _train(inputs, Method.PREFILL_SHARE, inputs.steps, 2e-3)
    if inputs.adapters:
        _, cells["icarus"] = _train(inputs, Method.ICARUS, 300, 3e-3, lora=True)
    return cells


def _train(
    inputs: Inputs,
    method: Method,
    steps: int,
    learning_rate: float,
    *,
    lora: bool = False,
    decode: Path | None = None,
) -> tuple[PreTrainedModel, float]:
    settings = Settings(
        method=method,
        base=str(inputs.base),
        out=Path("unused"),
        decode=decode,
        lora=Lora(RANK, 2.0 * RANK) if lora else None,
        steps=steps,
        batch_size=BATCH,
        learning_rate=learning_rate,
        warmup=30,
        seed=inputs.seed,
    )
    training, metrics = train_pairs(settings, inputs.train, inputs.held_out)
    return training.saved, 100 * metrics["heldout_exact_match"]


def _pair(prefill: PreTrainedModel, decode: PreTrainedModel, inputs: Inputs) -> float:
    return 100 * exact_match(prefill, decode, inputs.held_out, 0).accuracy


def _load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()
