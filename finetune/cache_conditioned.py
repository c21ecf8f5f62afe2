"""Cache-conditioned fine-tuning: one loss, `L = -sum_t log P(y_t | y_<t, C(X))`, for every way of sharing.

`C(X)` is the KV that the prefill module writes for `x_1 ... x_{N-1}`; the decode module runs `x_N` and the
response. Which of the two modules trains is the whole difference between the recipes:

    SUN, QSUN      prefill trains, decode is frozen (QSUN: a quantized decode module)     arXiv 2603.02599
    PrefillShare   decode trains, prefill is frozen                                       arXiv 2602.12029
    dedicated      one module in both roles: ordinary fine-tuning

ICaRus, whose adapters read keys and values of the base only, is `finetune.icarus`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

TokenPair = tuple[Sequence[int], Sequence[int]]


class Recipe(StrEnum):
    """Which side of a prefill and decode pair is trained."""

    SUN = "sun"
    PREFILLSHARE = "prefillshare"


class Batch(NamedTuple):
    """Prompts padded on the left, so that `x_N` is the last column, and responses padded on the right.

    Ids are int64 and masks (1 = a real token) too: prompt `[batch, N]`, response `[batch, T]`.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor


def collate(pairs: Sequence[TokenPair], pad_token_id: int) -> Batch:
    """Batch (prompt ids, response ids) pairs of any lengths; neither side of a pair may be empty."""
    if any(not prompt or not response for prompt, response in pairs):
        raise ValueError("a prompt and its response need at least one token each")
    prompts = [torch.tensor(prompt) for prompt, _ in pairs]
    responses = [torch.tensor(response) for _, response in pairs]

    def pad(rows: list[Tensor], value: int, side: str) -> Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)

    return Batch(
        prompt_ids=pad(prompts, pad_token_id, "left"),
        prompt_mask=pad([torch.ones_like(row) for row in prompts], 0, "left"),
        response_ids=pad(responses, pad_token_id, "right"),
        response_mask=pad([torch.ones_like(row) for row in responses], 0, "right"),
    )


def train_only(recipe: Recipe, prefill_model: nn.Module, decode_model: nn.Module) -> list[nn.Parameter]:
    """Freeze the side that `recipe` shares; return the parameters of the side that trains."""
    trained, frozen = (prefill_model, decode_model) if recipe is Recipe.SUN else (decode_model, prefill_model)
    if trained is frozen:
        raise ValueError(f"{recipe} needs two modules: the frozen one must not be the trained one")
    frozen.requires_grad_(False)
    trained.requires_grad_(True)
    return list(trained.parameters())


def prompt_cache(prefill_model: PreTrainedModel, batch: Batch) -> DynamicCache:
    """KV of `x_1 ... x_{N-1}`, per layer `[batch, KV heads, N-1, head size]`; empty where N is 1.

    Gradients flow back through K and V exactly when the prefill module has parameters that train.
    """
    cache = DynamicCache(config=prefill_model.config)
    ids, mask = batch.prompt_ids[:, :-1], batch.prompt_mask[:, :-1]
    if ids.shape[1] == 0:
        return cache
    trains = any(parameter.requires_grad for parameter in prefill_model.parameters())
    with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
        # The body without its output head: the tokens that a prefill module would predict are never used.
        prefill_model.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions(mask),
            past_key_values=cache,
            use_cache=True,
        )
    return cache


def response_logits(prefill_model: PreTrainedModel, decode_model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits `[batch, T, vocabulary]` of the decode module for every response token, teacher-forced."""
    cache = prompt_cache(prefill_model, batch)
    # The decode module's input is x_N, y_1 ... y_{T-1}: it makes every response token, the first one too.
    ids = torch.cat([batch.prompt_ids[:, -1:], batch.response_ids[:, :-1]], dim=1)
    mask = torch.cat([batch.prompt_mask, batch.response_mask[:, :-1]], dim=1)
    output = decode_model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions(mask)[:, -ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )
    logits: Tensor = output.logits
    return logits


def cache_conditioned_loss(
    prefill_model: PreTrainedModel, decode_model: PreTrainedModel, batch: Batch
) -> Tensor:
    """Mean over the response tokens of `-log P(y_t | y_<t, C(X))`, a scalar.

    The source's loss is the sum; the mean keeps one learning rate for any batch and response length.
    With one model in both roles it is ordinary fine-tuning on the response.
    """
    logits = response_logits(prefill_model, decode_model, batch)
    real = batch.response_mask.bool()
    return cross_entropy(logits[real], batch.response_ids[real])


def positions(mask: Tensor) -> Tensor:
    """Position of each real token, counted without the padding on its left."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
