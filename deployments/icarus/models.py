"""vLLM's Llama, Qwen2 and Qwen3 with two streams (vLLM 0.32, eager, one device).

Weight loading, LoRA, scheduler and sampler are vLLM's own. A request without an adapter is the base's.
"""

from typing import cast

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.sequence import IntermediateTensors

from deployments.icarus.checks import refuse
from deployments.icarus.layers import TwoStreamLayer
from deployments.icarus.streams import Streams


class _TwoStreams(nn.Module):
    """Before a vLLM model in the order of bases: builds that model, then replaces its layers."""

    # An adapter of the embedding would change the base's rows, and with them everybody's KV.
    embedding_modules: dict[str, str] = {}  # noqa: RUF012 - vLLM reads it off the class

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        refuse(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self._streams = Streams()
        layers = cast(nn.ModuleList, self.get_submodule("model.layers"))
        # All readers come after all writers: only layers that share KV at the end may skip prompt rows.
        for index, layer in enumerate(layers):
            layers[index] = TwoStreamLayer(layer, self._streams, vllm_config)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states `[tokens, hidden]` of the adapted stream, valid where logits are taken."""
        self._streams.begin(positions)
        hidden = self.get_submodule("model")(input_ids, positions, intermediate_tensors, inputs_embeds)
        return self._streams.adapted(hidden)


class IcarusLlamaForCausalLM(_TwoStreams, LlamaForCausalLM):  # type: ignore[misc]
    """Llama and what vLLM runs as Llama."""


class IcarusQwen2ForCausalLM(_TwoStreams, Qwen2ForCausalLM):  # type: ignore[misc]
    """Qwen2 and Qwen2.5."""


class IcarusQwen3ForCausalLM(_TwoStreams, Qwen3ForCausalLM):  # type: ignore[misc]
    """Qwen3, dense."""
