"""A family made for a benchmark: a base of 24 million random parameters and random LoRA adapters.

Nothing here can answer anything. What it costs to serve is that of a trained family of the same shapes.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.report import REPOSITORY

TOKENIZER = REPOSITORY / "examples" / "quickstart" / "weights" / "base"
"""One token per character, and so few that the matrices are nearly all linear layers."""

RANK = 16
HIDDEN, INTERMEDIATE, LAYERS = 512, 1408, 8
HEADS, KV_HEADS, HEAD_SIZE = 8, 4, 64
MAX_MODEL_LEN = 2048

KV = KV_HEADS * HEAD_SIZE
LINEARS = {
    "self_attn.q_proj": (HIDDEN, HEADS * HEAD_SIZE),
    "self_attn.k_proj": (HIDDEN, KV),
    "self_attn.v_proj": (HIDDEN, KV),
    "self_attn.o_proj": (HEADS * HEAD_SIZE, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INTERMEDIATE),
    "mlp.up_proj": (HIDDEN, INTERMEDIATE),
    "mlp.down_proj": (INTERMEDIATE, HIDDEN),
}
"""Inputs and outputs of each linear of a layer."""

ALL = frozenset(LINEARS)
NOT_KEYS_AND_VALUES = ALL - {"self_attn.k_proj", "self_attn.v_proj"}
"""What an ICaRus adapter may change."""


@dataclass(frozen=True, slots=True)
class Family:
    """Directories: the base, and its adapters by the name of their model."""

    base: Path
    adapters: dict[str, Path]

    def first(self, count: int) -> "Family":
        """The same base with its first `count` adapters."""
        return Family(self.base, dict(list(self.adapters.items())[:count]))


def make_family(folder: Path, adapters: int, linears: frozenset[str] = ALL) -> Family:
    """Write a base and `adapters` adapters of `linears` below `folder`: 94 MB, and 5 MB for each adapter."""
    made = {name: make_adapter(folder / name, number, linears) for number, name in _names(adapters)}
    return Family(_make_base(folder / "base"), made)


def _names(count: int) -> Iterator[tuple[int, str]]:
    return ((number, f"m{number:03d}") for number in range(count))


def _make_base(folder: Path) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(TOKENIZER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = AutoConfig.from_pretrained(TOKENIZER)
    config.update({"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS})
    config.update({"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_SIZE})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_adapter(folder: Path, seed: int, linears: frozenset[str]) -> Path:
    """One adapter of `linears`, as PEFT writes it; `seed` tells it from others."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for linear in sorted(linears):
            inputs, outputs = LINEARS[linear]
            name = f"base_model.model.model.layers.{layer}.{linear}"
            tensors[f"{name}.lora_A.weight"] = _random(generator, RANK, inputs)
            tensors[f"{name}.lora_B.weight"] = _random(generator, outputs, RANK)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": sorted(linear.rpartition(".")[2] for linear in linears),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator) * 0.02
