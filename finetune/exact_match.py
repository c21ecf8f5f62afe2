"""Greedy exact match of a prefill and decode pair on samples that training has not seen."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from finetune.cache_conditioned import TokenPair, collate, response_logits


class ExactMatch(NamedTuple):
    """How many of the samples a pair answers token for token, the end token included."""

    matched: int
    samples: int

    @property
    def accuracy(self) -> float:
        """The matched share, 0 to 1."""
        return self.matched / self.samples


@torch.inference_mode()
def exact_match(
    prefill_model: PreTrainedModel,
    decode_model: PreTrainedModel,
    pairs: Sequence[TokenPair],
    pad_token_id: int,
    batch_size: int = 128,
) -> ExactMatch:
    """Count the (prompt ids, response ids) pairs whose response greedy decoding would give.

    One teacher-forced pass stands for decoding: greedy text equals the response exactly when the response
    token is the most likely one at every step. Each response must therefore close with its end token.
    """
    if not pairs:
        raise ValueError("exact match needs at least one sample")
    matched = 0
    for start in range(0, len(pairs), batch_size):
        batch = collate(pairs[start : start + batch_size], pad_token_id)
        right = response_logits(prefill_model, decode_model, batch).argmax(dim=-1) == batch.response_ids
        matched += int((right | ~batch.response_mask.bool()).all(dim=1).sum())
    return ExactMatch(matched, len(pairs))
