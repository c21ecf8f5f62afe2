"""A decoder layer over two streams: keys and values come from the base rows alone.

Made from a layer of vLLM's Llama, Qwen2 or Qwen3, whose parts keep their names, so that weights and adapters
find them. The base rows' attention writes the KV cache; the adapted rows' attention is a second layer on the
same cache that only reads (`kv_sharing_target_layer_name`, vLLM 0.32), and has no cache of its own.
"""

from typing import cast

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention

from deployments.icarus.streams import Streams

_ATTENTION_PARTS = {"qkv_proj", "o_proj", "rotary_emb", "attn"}
_ATTENTION_NORMS = {"q_norm", "k_norm"}
_MLP_PARTS = {"gate_up_proj", "down_proj", "act_fn"}
_LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


class TwoStreamLayer(nn.Module):
    """Stands in for `layer` in `LlamaModel` or `Qwen2Model`. Raises ValueError for parts it does not know."""

    input_layernorm: nn.Module
    post_attention_layernorm: nn.Module

    def __init__(self, layer: nn.Module, streams: Streams, config: VllmConfig) -> None:
        super().__init__()
        _take(self, layer, _LAYER_PARTS)
        self.self_attn = TwoStreamAttention(
            cast(_StockAttention, layer.get_submodule("self_attn")), streams, config
        )
        self.mlp = TwoStreamMLP(layer.get_submodule("mlp"), streams)
        self._streams = streams

    def forward(
        self, positions: torch.Tensor, hidden: torch.Tensor, residual: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first layer, which gets no residual, gets tokens; all others get rows of both streams."""
        if residual is None:
            residual = self._streams.split(hidden)
            hidden = self.input_layernorm(residual)
        else:
            hidden, residual = self.input_layernorm(hidden, residual)
        hidden, residual = self.post_attention_layernorm(self.self_attn(hidden), residual)
        output: torch.Tensor = self.mlp(hidden)
        return output, residual


class _StockAttention(nn.Module):
    """What vLLM's attention modules of Llama, Qwen2 and Qwen3 have in common: sizes, and `attn`."""

    head_dim: int
    q_size: int
    kv_size: int
    attn: Attention


class TwoStreamAttention(nn.Module):
    """K and V of base rows into the cache; queries of both streams over it."""

    qkv_proj: nn.Module
    o_proj: nn.Module
    rotary_emb: nn.Module
    attn: nn.Module

    def __init__(self, attention: "_StockAttention", streams: Streams, config: VllmConfig) -> None:
        super().__init__()
        norms = _ATTENTION_NORMS if hasattr(attention, "q_norm") else set()
        _take(self, attention, _ATTENTION_PARTS | norms)
        self._normed = bool(norms)
        self._head_dim = attention.head_dim
        self._widths = [attention.q_size, attention.kv_size, attention.kv_size]
        self._streams = streams
        writer = attention.attn
        self.reader = Attention(
            writer.num_heads,
            writer.head_size,
            writer.impl.scale,
            num_kv_heads=writer.num_kv_heads,
            cache_config=config.cache_config,
            quant_config=config.quant_config,
            per_layer_sliding_window=writer.sliding_window,
            prefix=f"{writer.layer_name.removesuffix('.attn')}.reader",
            kv_sharing_target_layer_name=writer.layer_name,
        )
        streams.read_by(self.reader.layer_name)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        streams, base = self._streams, self._streams.num_base
        q, k, v = torch.split(streams.linear(self.qkv_proj, hidden), self._widths, dim=-1)
        if self._normed:
            q, k = self._norm("q_norm", q), self._norm("k_norm", k)
        q, k = self.rotary_emb(streams.positions, q, k)
        written = self.attn(q[:base], k[:base], v[:base])
        # The reader has no use for keys and values: it finds the base rows' in the cache.
        read = self.reader(q[base:], k[base:], v[base:])
        return streams.linear(self.o_proj, torch.cat([written, read]))

    def _norm(self, name: str, heads: torch.Tensor) -> torch.Tensor:
        by_head = heads.reshape(heads.shape[0], -1, self._head_dim)
        normed: torch.Tensor = self.get_submodule(name)(by_head)
        return normed.reshape(heads.shape)


class TwoStreamMLP(nn.Module):
    """The layer's MLP, with deltas on the adapted rows."""

    gate_up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module

    def __init__(self, mlp: nn.Module, streams: Streams) -> None:
        super().__init__()
        _take(self, mlp, _MLP_PARTS)
        self._streams = streams

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gated: torch.Tensor = self.act_fn(self._streams.linear(self.gate_up_proj, hidden))
        return self._streams.linear(self.down_proj, gated)


def _take(target: nn.Module, source: nn.Module, parts: set[str]) -> None:
    """Move the parts over under their names. A part that nobody here runs would be left out in silence."""
    found = {name for name, _ in source.named_children()}
    if found != parts:
        raise ValueError(
            f"icarus: {type(source).__name__} has the parts {sorted(found)}, expected {sorted(parts)}; "
            "this base is no Llama, Qwen2 or Qwen3 as vLLM 0.32 builds it"
        )
    for name in parts:
        setattr(target, name, getattr(source, name))
