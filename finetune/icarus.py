"""ICaRus: the base writes every key and value, prompt and response; adapters only read (rule 8).

The adapted model runs x_N and the response; its queries attend to the base's K and V of the same and all
earlier tokens, never to its own. So one cache serves all adapters of a base. Adapters sit on q, o, gate, up
and down: on k and v they would have no effect, so they are refused.
"""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from finetune.cache_conditioned import Batch, positions


class ReadOnlyCache(DynamicCache):  # type: ignore[misc]
    """What the base wrote for `[past + now]` tokens, read by a model that runs the `now` ones."""

    def __init__(self, written: DynamicCache, past: int) -> None:
        super().__init__()
        self.layers = written.layers
        self._past = past

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """The base's K and V; the reader's own are dropped."""
        layer = self.layers[layer_idx]
        return layer.keys, layer.values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before the first one that runs now: the causal mask counts from it."""
        return self._past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return self._past + query_length, 0


def icarus_logits(base: PreTrainedModel, adapted: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits `[batch, T, vocabulary]` for every response token, teacher-forced; the base gets no gradient."""
    ids = torch.cat([batch.prompt_ids, batch.response_ids[:, :-1]], dim=1)
    mask = torch.cat([batch.prompt_mask, batch.response_mask[:, :-1]], dim=1)
    place = positions(mask)
    written = DynamicCache(config=base.config)
    with torch.no_grad():
        base.base_model(
            input_ids=ids, attention_mask=mask, position_ids=place, past_key_values=written, use_cache=True
        )
    past = batch.prompt_ids.shape[1] - 1
    output = adapted(
        input_ids=ids[:, past:],
        attention_mask=mask,
        position_ids=place[:, past:],
        past_key_values=ReadOnlyCache(written, past),
        use_cache=True,
    )
    logits: Tensor = output.logits
    return logits
