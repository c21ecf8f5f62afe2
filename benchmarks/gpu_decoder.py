"""A decoder-only transformer in plain torch, with random weights: what a step computes, without an engine.

Llama's layer: RMSNorm, one product for Q, K and V, rotary embeddings, grouped-query attention, a gated MLP;
and an output head. It is a real forward: a token behind KV gives what it gives within its prompt.

Left out: Qwen3's norms of Q and K (less than 0.1 % of its FLOPs), paged KV (it is contiguous here), and all
that an engine does on the host.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from benchmarks.gpu_linear import DenseLinear, Int4Linear, Linear, random_tensor
from simulator.timing import Geometry

NORM_EPSILON = 1e-6
ROTARY_BASE = 1e6


class Layer(NamedTuple):
    """The linear layers of one layer, and its two norms' weights [hidden]."""

    qkv: Linear
    out: Linear
    gate_up: Linear
    down: Linear
    input_norm: Tensor
    mlp_norm: Tensor


class ElementWise(NamedTuple):
    """What stands between the matrix products; rows come first in every tensor."""

    add_norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor]
    gate: Callable[[Tensor], Tensor]


def add_norm(rows: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of the sum [rows, hidden], and the sum (RMSNorm, arXiv 1910.07467, equation 4)."""
    total = residual + rows
    return functional.rms_norm(total, (total.shape[-1],), weight, NORM_EPSILON), total


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """[rows, heads, size] turned by [rows, 1, size / 2] (RoFormer, arXiv 2104.09864, equation 34)."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def gate(rows: Tensor) -> Tensor:
    """[rows, 2 * intermediate] to [rows, intermediate] (SwiGLU, arXiv 2002.05202, equation 5)."""
    gates, ups = rows.chunk(2, dim=-1)
    return functional.silu(gates) * ups


EAGER = ElementWise(add_norm, rotate, gate)


def fused() -> ElementWise:
    """One Triton kernel each, as engines have them. `torch.compile` builds it at the first call."""
    return ElementWise(torch.compile(add_norm), torch.compile(rotate), torch.compile(gate))


def fusing_obstacle(device: torch.device) -> str | None:
    """Why `fused` does not run on this device; None if it does."""
    try:
        rows = torch.ones((2, 128), dtype=torch.bfloat16, device=device)
        fused().gate(rows).sum().item()
    except RuntimeError as error:  # the root of what torch.compile raises
        return f"torch.compile does not run here: {str(error).strip().splitlines()[0]}"
    return None


class Decoder:
    """Weights and KV memory on one device. `dtype` is that of activations, KV and 16 bit weights."""

    def __init__(
        self,
        geometry: Geometry,
        device: torch.device,
        kv_tokens: int,
        *,
        weight_bits: int = 16,
        dtype: torch.dtype = torch.bfloat16,
        element_wise: ElementWise = EAGER,
    ) -> None:
        self.geometry = geometry
        self.device = device
        self.kv_tokens = kv_tokens
        self._dtype = dtype
        self._ops = element_wise
        shape, size = geometry, geometry.head_size

        def linear(rows_in: int, rows_out: int) -> Linear:
            if weight_bits == 4:
                return Int4Linear(rows_in, rows_out, device)
            return DenseLinear(rows_in, rows_out, device, dtype)

        def norm() -> Tensor:
            return torch.ones(shape.hidden, device=device, dtype=dtype)

        self._embeddings = random_tensor((shape.vocab, shape.hidden), 1.0, device, dtype)
        self._layers = [
            Layer(
                qkv=linear(shape.hidden, (shape.heads + 2 * shape.kv_heads) * size),
                out=linear(shape.heads * size, shape.hidden),
                gate_up=linear(shape.hidden, 2 * shape.intermediate),
                down=linear(shape.intermediate, shape.hidden),
                input_norm=norm(),
                mlp_norm=norm(),
            )
            for _ in range(shape.layers)
        ]
        self._norm = norm()
        # Checkpoints of 4 bits keep the head at 16 (`Geometry.lm_head_bytes`).
        self._head = DenseLinear(shape.hidden, shape.vocab, device, dtype)
        kv_shape = (shape.layers, 2, kv_tokens * shape.kv_heads * size)
        self._kv = random_tensor(kv_shape, 1.0, device, dtype)
        powers = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
        angles = torch.arange(kv_tokens, device=device, dtype=torch.float32)[:, None] / ROTARY_BASE**powers
        self._cosine = angles.cos().to(dtype)[:, None]
        self._sine = angles.sin().to(dtype)[:, None]

    def kv(self, requests: int, tokens: int) -> Tensor:
        """The KV memory as [layers, 2, requests, tokens, KV heads, head size]. Every call views the same
        memory. Raises RuntimeError if it is smaller."""
        shape = self.geometry
        used = self._kv[..., : requests * tokens * shape.kv_heads * shape.head_size]
        return used.view(shape.layers, 2, requests, tokens, shape.kv_heads, shape.head_size)

    def hidden(self, tokens: Tensor, kv: Tensor, cached: int) -> Tensor:
        """States [requests * new, hidden] of `tokens` [requests, new] behind `cached` tokens in `kv`, which
        gets theirs. `kv` is as `kv()` gives it, with room for both."""
        requests, new = tokens.shape
        shape, ops = self.geometry, self._ops
        heads = [shape.heads, shape.kv_heads, shape.kv_heads]
        positions = torch.arange(cached, cached + new, device=self.device).repeat(requests)
        cosine, sine = self._cosine[positions], self._sine[positions]
        residual = self._embeddings[tokens.flatten()]
        rows, residual = ops.add_norm(torch.zeros_like(residual), residual, self._layers[0].input_norm)
        norms = [layer.input_norm for layer in self._layers[1:]] + [self._norm]
        for layer, (keys, values), next_norm in zip(self._layers, kv, norms, strict=True):
            mixed = layer.qkv(rows).view(requests * new, sum(heads), shape.head_size)
            q, k, v = torch.split_with_sizes(mixed, heads, dim=1)
            q, k = ops.rotate(q, cosine, sine), ops.rotate(k, cosine, sine)
            keys[:, cached : cached + new] = k.view(requests, new, *k.shape[1:])
            values[:, cached : cached + new] = v.view(requests, new, *v.shape[1:])
            read = cached + new
            attended = attend(q.view(requests, new, *q.shape[1:]), keys[:, :read], values[:, :read])
            rows = layer.out(attended.reshape(requests * new, shape.heads * shape.head_size))
            rows, residual = ops.add_norm(rows, residual, layer.mlp_norm)
            rows, residual = ops.add_norm(layer.down(ops.gate(layer.gate_up(rows))), residual, next_norm)
        return rows

    def logits(self, states: Tensor) -> Tensor:
        """[rows, hidden] to [rows, vocab]."""
        return self._head(states)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of the last `new` of `length` tokens: [requests, new, heads, size].

    `keys` and `values` are [requests, length, KV heads, size].
    """
    requests, new, heads, size = queries.shape
    length, kv_heads = keys.shape[1:3]
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    if new == 1:
        # The query heads of one KV head are queries of it, so that each kernel reads KV once.
        grouped = queries.view(requests, kv_heads, heads // kv_heads, size)
        return functional.scaled_dot_product_attention(grouped, keys, values).view(requests, 1, heads, size)
    attended = functional.scaled_dot_product_attention(
        queries.transpose(1, 2), keys, values, causal_lower_right(new, length), enable_gqa=True
    )
    return attended.transpose(1, 2)
