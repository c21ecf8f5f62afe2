"""The shape of a dense decoder-only transformer, and what follows from it: parameters, KV bytes, FLOPs.

Counts follow Kaplan et al. 2020, "Scaling Laws for Neural Language Models" (arXiv 2001.08361, section 2.1): a
matrix product takes two FLOPs per weight and token. Norms, biases, rotary embeddings and activations are
left out: together they are below 0.1 % of the weights. Sliding windows are not modelled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from heliostat.errors import HeliostatError
from simulator.timing.complaints import complaints

SCALE_GROUP = 128
"""Weights that share one 16 bit scale and one zero point below 8 bits: `group_size` of AWQ and GPTQ
checkpoints (AWQ, arXiv 2306.00978, section 5.1)."""


class HubConfig(BaseModel):
    """What is read of a checkpoint's `config.json`, by Hugging Face's own names."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_hidden_layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int | None = Field(default=None, gt=0)
    head_dim: int | None = Field(default=None, gt=0)
    intermediate_size: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    tie_word_embeddings: bool = False
    # Present in mixtures of experts (Qwen3-MoE, Mixtral, DeepSeek) and in latent attention (DeepSeek).
    num_experts: int | None = None
    num_local_experts: int | None = None
    n_routed_experts: int | None = None
    kv_lora_rank: int | None = None


@dataclass(frozen=True, slots=True)
class Geometry:
    """A Llama-like model: grouped-query attention, a gated MLP of three matrices, an output head.

    Tokens are counts, `bits` are those of one stored number.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocab: int
    tied_embeddings: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, JsonValue], source: str = "config.json") -> Self:
        """From the contents of a Hugging Face `config.json`; `source` is what errors call it.

        Raises HeliostatError with every key that is missing or wrong, or if the model is not dense.
        """
        try:
            read = HubConfig.model_validate(config)
        except ValidationError as error:
            raise HeliostatError(
                f"{source}: {complaints(error)}; the simulator knows dense models configured like "
                "Llama, Mistral, Qwen2 and Qwen3"
            ) from error
        for key in ("num_experts", "num_local_experts", "n_routed_experts", "kv_lora_rank"):
            if getattr(read, key):
                raise HeliostatError(
                    f"{source}: `{key}`: mixtures of experts and latent attention are not modelled, only "
                    "dense models configured like Llama, Mistral, Qwen2 and Qwen3"
                )
        return cls(
            layers=read.num_hidden_layers,
            hidden=read.hidden_size,
            heads=read.num_attention_heads,
            kv_heads=read.num_key_value_heads or read.num_attention_heads,
            head_size=read.head_dim or read.hidden_size // read.num_attention_heads,
            intermediate=read.intermediate_size,
            vocab=read.vocab_size,
            tied_embeddings=read.tie_word_embeddings,
        )

    @property
    def _matrices(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the linear layers of one layer: Q, K, V, O, gate, up, down."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        to_mlp = (self.hidden, self.intermediate)
        return (
            (self.hidden, queries),
            (self.hidden, keys),
            (self.hidden, keys),
            (queries, self.hidden),
            to_mlp,
            to_mlp,
            (self.intermediate, self.hidden),
        )

    @property
    def linear_params(self) -> int:
        """Weights that every token is multiplied with, the output head left out."""
        return self.layers * sum(rows * columns for rows, columns in self._matrices)

    @property
    def lm_head_params(self) -> int:
        """Weights of the output head, used only for tokens that sample."""
        return self.vocab * self.hidden

    @property
    def params(self) -> int:
        """All weights; tied embeddings count once."""
        return self.linear_params + self.lm_head_params * (1 if self.tied_embeddings else 2)

    def linear_bytes(self, bits: int) -> float:
        """Of `linear_params`, with the scales that go with fewer than 8 bits."""
        scale = (16 + bits) / SCALE_GROUP if bits < 8 else 0.0
        return self.linear_params * (bits + scale) / 8

    def lm_head_bytes(self, bits: int) -> float:
        """AWQ, GPTQ and FP8 checkpoints keep head and embeddings at 16 bits."""
        return self.lm_head_params * max(bits, 16) / 8

    def weight_bytes(self, bits: int) -> float:
        """What the whole module takes in memory."""
        embeddings = 1 if self.tied_embeddings else 2
        return self.linear_bytes(bits) + self.lm_head_bytes(bits) * embeddings

    def kv_bytes_per_token(self, kv_bits: int = 16) -> float:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size * kv_bits / 8

    def linear_flops(self, tokens: float) -> float:
        """Of the linear layers, the output head left out."""
        return 2.0 * self.linear_params * tokens

    def lm_head_flops(self, tokens: float) -> float:
        """Of the output head, for so many tokens that sample."""
        return 2.0 * self.lm_head_params * tokens

    def attention_flops(self, new: float, context: float) -> float:
        """Causal attention of `new` tokens behind `context`: each reads the context and, on average, half
        of the new ones. QK and AV take two FLOPs each per head, dimension and pair (FlashAttention-2, arXiv
        2307.08691, section 4.1)."""
        return 4.0 * self.layers * self.heads * self.head_size * new * (context + new / 2)

    def adapter_params(self, rank: int) -> int:
        """A LoRA adapter of that rank on all linear layers: `rank * (in + out)` each (LoRA, arXiv
        2106.09685, section 4.1)."""
        return self.layers * rank * sum(rows + columns for rows, columns in self._matrices)


def read_geometry(checkpoint: Path) -> Geometry:
    """The geometry in `checkpoint/config.json`. Raises HeliostatError."""
    return Geometry.from_config(read_config(checkpoint), str(checkpoint / "config.json"))


def read_config(checkpoint: Path) -> dict[str, JsonValue]:
    """The whole `config.json` of a checkpoint directory. Raises HeliostatError that names the file."""
    path = checkpoint / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise HeliostatError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise HeliostatError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise HeliostatError(f"{path}: holds no JSON object")
    return config
