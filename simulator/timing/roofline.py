"""What a step takes at least, from the GPU's datasheet and the model's geometry, and then corrected.

The roofline model (Williams, Waterman and Patterson 2009, CACM 52(4), equation 1): a kernel takes its bytes
over the memory's bandwidth or its FLOPs over the peak rate, whichever is more. A step is the sum of its
kernels. Fewer bits per weight are fewer bytes and nothing else: W4A16 computes in 16 bits.

What is not modelled: activations in memory, prompts' KV that is read again per tile of queries, and
overlap of one kernel with the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from simulator.timing.base import Chunk, StepLine
from simulator.timing.corrections import Corrections
from simulator.timing.geometry import Geometry
from simulator.timing.hardware import Gpu


class Kernel(NamedTuple):
    """Work on one GPU of a replica, in ms at the datasheet's rates."""

    memory_ms: float
    compute_ms: float
    attention: bool = False

    def ms(self, corrections: Corrections) -> float:
        """What it takes: the slower of the two, each at its efficiency."""
        rate = corrections.attention_efficiency if self.attention else corrections.compute_efficiency
        return max(self.memory_ms / corrections.memory_efficiency, self.compute_ms / rate)


@dataclass(frozen=True)
class Adapters:
    """LoRA adapters of one rank on all linear layers, in 16 bits; so many distinct ones per step at most."""

    rank: int
    per_step: int = 1


@dataclass(frozen=True)
class Roofline:
    """One replica as `simulator.timing.base.Timing`: `gpus` GPUs with tensor parallelism.

    `rows_per_request` 2 is ICaRus (arXiv 2603.13281, appendix B, algorithm 3): each decoded token runs as an
    encoder and a decoder row through the shared weights, attention has twice the query heads, KV is read
    once. Only the decoder row has an adapter and samples, and prompts are the encoder's alone.

    `compute_bits` are those of the matrix products' operands; None: 16, or 32 (TF32) for 32 bit weights.
    `link_gb_per_s` is what brings KV to this replica; None: the network cards of its GPUs.
    """

    gpu: Gpu
    geometry: Geometry
    gpus: int = 1
    weight_bits: int = 16
    kv_bits: int = 16
    corrections: Corrections = field(default_factory=Corrections)
    rows_per_request: int = 1
    adapters: Adapters | None = None
    compute_bits: int | None = None
    link_gb_per_s: float | None = None
    _lines: dict[int, StepLine] = field(default_factory=dict, init=False, repr=False, compare=False)

    def decode_line(self, requests: int) -> StepLine:
        """Straight in the context, as KV bytes and attention FLOPs both are."""
        # Simulations ask for the same few batches millions of times.
        line = self._lines.get(requests)
        if line is None:
            line = StepLine(self._base_ms(requests, ()), self.context_kernel(1).ms(self.corrections))
            self._lines[requests] = line
        return line

    def step_ms(self, requests: int, context_tokens: int, chunks: Sequence[Chunk]) -> float:
        line = self.decode_line(requests)
        base_ms = self._base_ms(requests, chunks) if chunks else line.base_ms
        return base_ms + line.per_token_ms * context_tokens

    def handoff_ms(self, num_bytes: int) -> float:
        """Latency plus bytes over the link, each GPU of the replica taking its share of the KV."""
        link = self.link_gb_per_s
        gb_per_s = self.gpu.nic_gb_per_s * self.gpus if link is None else link
        moving_ms = num_bytes / (gb_per_s * self.corrections.handoff_efficiency) / 1e6
        return self.corrections.handoff_latency_ms + moving_ms

    def rows(self, requests: int, chunks: Sequence[Chunk]) -> int:
        """Of the activations, in a step: what the shared weights are multiplied with."""
        return requests * self.rows_per_request + sum(chunk.new_tokens for chunk in chunks)

    def kernels(self, requests: int, chunks: Sequence[Chunk]) -> list[Kernel]:
        """A step but for what decoding requests read of their context (`context_kernel`)."""
        shape, rows = self.geometry, self.rows(requests, chunks)
        work = [self._kernel(shape.linear_bytes(self.weight_bits), shape.linear_flops(rows))]
        if requests:  # only they sample: what a prefill replica computes is KV, its token is not used
            head_bytes = shape.lm_head_bytes(self.weight_bits)
            work.append(self._kernel(head_bytes, shape.lm_head_flops(requests)))
        if self.adapters is not None:
            params = shape.adapter_params(self.adapters.rank)
            distinct = min(self.adapters.per_step, requests + len(chunks))
            adapted = rows if self.rows_per_request == 1 else requests
            work.append(self._kernel(2.0 * params * distinct, 2.0 * params * adapted))
        for new, context in chunks:
            work.append(self._attention(context + new, shape.attention_flops(new, context)))
        return work

    def context_kernel(self, context_tokens: int) -> Kernel:
        """Attention of decoding requests that have so much context in all: one query per row."""
        # The context counts the new token, of which `attention_flops` would add a half.
        per_token = self.geometry.attention_flops(1, 0.5) * self.rows_per_request
        return self._attention(context_tokens, per_token * context_tokens)

    def all_reduce_ms(self, tokens: int) -> float:
        """Two all-reduces per layer (Megatron-LM, arXiv 1909.08053, section 3), each a ring that moves
        2 (g - 1) / g of the activations through every GPU (Patarasuk and Yuan 2009, JPDC 69(2))."""
        if self.gpus == 1:
            return 0.0
        moved = tokens * self.geometry.hidden * 2 * 2 * (self.gpus - 1) / self.gpus
        rate = self.gpu.nvlink_gb_per_s * self.corrections.all_reduce_efficiency
        return 2 * self.geometry.layers * (self.corrections.all_reduce_ms + moved / rate / 1e6)

    def _base_ms(self, requests: int, chunks: Sequence[Chunk]) -> float:
        return (
            self.corrections.step_overhead_ms
            + self.corrections.per_request_ms * requests
            + self.all_reduce_ms(self.rows(requests, chunks))
            + sum(kernel.ms(self.corrections) for kernel in self.kernels(requests, chunks))
        )

    def _kernel(self, num_bytes: float, flops: float) -> Kernel:
        bits = self.compute_bits or (32 if self.weight_bits == 32 else 16)
        return Kernel(
            num_bytes / self.gpus / self.gpu.memory_gb_per_s / 1e6,
            flops / self.gpus / self.gpu.tflops(bits) / 1e9,
        )

    def _attention(self, tokens: int, flops: float) -> Kernel:
        """Attention computes in 16 bits, whatever the bits of the KV; KV heads are split, not cut."""
        held = self.geometry.kv_bytes_per_token(self.kv_bits) * kv_share(self.geometry, self.gpus)
        return Kernel(
            held * tokens / self.gpu.memory_gb_per_s / 1e6,
            flops / self.gpus / self.gpu.tflops(32 if self.kv_bits == 32 else 16) / 1e9,
            attention=True,
        )


def kv_share(geometry: Geometry, gpus: int) -> float:
    """The part of each token's KV that one of so many GPUs holds: with more GPUs than heads, one head."""
    return max(1 / gpus, 1 / geometry.kv_heads)
