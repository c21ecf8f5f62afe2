"""The two streams of a step, as rows of one batch: `[base rows | adapted rows]`.

Every token has a base row, which writes its K and V. A token has an adapted row only where its logits are
wanted: such a row reads the shared KV and itself, no other adapted row, so leaving the rest out is exact, and
a prompt costs what the base costs (`kv_sharing_fast_prefill` of vLLM 0.32 says which rows these are).
"""

import torch
from torch import nn
from vllm.forward_context import get_forward_context
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA


class Streams:
    """One step's split of the rows; all layers of a model hold the same object."""

    def __init__(self) -> None:
        self._reader = ""
        self._rows: torch.Tensor | None = None
        self.num_base = 0
        self.positions = torch.empty(0, dtype=torch.long)

    def read_by(self, layer_name: str) -> None:
        """The read-only attention layer whose metadata names the adapted rows; all have the same."""
        self._reader = layer_name

    def begin(self, positions: torch.Tensor) -> None:
        """A step of the tokens at `positions` (`[tokens]`), before its first layer."""
        self.num_base = positions.shape[0]
        self._rows = self._find_rows()
        self.positions = torch.cat([positions, self._select(positions)])

    def split(self, hidden: torch.Tensor) -> torch.Tensor:
        """Embedded tokens `[tokens, hidden]` as rows of both streams: they begin alike."""
        return torch.cat([hidden, self._select(hidden)])

    def adapted(self, hidden: torch.Tensor) -> torch.Tensor:
        """The adapted rows, in their tokens' places: `[tokens, hidden]`, zero where nobody wants logits."""
        adapted = hidden[self.num_base :]
        if self._rows is None:
            return adapted
        placed = hidden.new_zeros(self.num_base, hidden.shape[1])
        placed[self._rows] = adapted
        return placed

    def linear(self, layer: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """One GEMM for both streams; then each adapted row's own delta.

        Tensor parallelism would need the delta before the reduction of `layer`; the models refuse it.
        """
        output: torch.Tensor
        if not isinstance(layer, BaseLinearLayerWithLoRA):
            output, _ = layer(rows)
            return output
        output, _ = layer.base_layer(rows)
        inputs, outputs = rows[self.num_base :], output[self.num_base :]
        if self._rows is None:
            layer._apply_lora_to_output(inputs, outputs)
        else:
            _add_per_request(layer, inputs, outputs)
        return output

    def _find_rows(self) -> torch.Tensor | None:
        """Indices of the tokens with an adapted row; None when that is all, as in steps of decodes alone."""
        metadata = get_forward_context().attn_metadata
        if not isinstance(metadata, dict):
            return None  # a dry run to measure memory
        reader = metadata[self._reader]
        rows: torch.Tensor | None = getattr(reader, "logits_indices_padded", None)
        if rows is None or reader.num_logits_indices == self.num_base:
            return None
        return rows[: reader.num_logits_indices]

    def _select(self, rows: torch.Tensor) -> torch.Tensor:
        return rows if self._rows is None else rows[self._rows]


def _add_per_request(layer: BaseLinearLayerWithLoRA, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
    """Add the deltas of rows that are one per request: vLLM keeps that mapping for LoRA on logits."""
    start = 0
    for lora_a, lora_b, width in zip(
        layer.lora_a_stacked, layer.lora_b_stacked, layer.output_slices, strict=True
    ):
        part = outputs[:, start : start + width]
        layer.punica_wrapper.add_lora_logits(part, inputs, lora_a, lora_b, 1.0)
        start += width
