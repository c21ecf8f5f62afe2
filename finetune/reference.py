"""The exactness reference: a prefill and a decode module run by hand, in float32, greedy.

Served tokens must equal these, whatever is shared on the way. Nothing is batched, padded or optimised here.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from finetune.icarus import ReadOnlyCache


def load_module(path: str | Path) -> PreTrainedModel:
    """Load a module's checkpoint in float32, ready for inference."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@torch.inference_mode()
def greedy_reference(
    prefill_model: PreTrainedModel,
    decode_model: PreTrainedModel,
    prompt_ids: Sequence[int],
    max_tokens: int,
    eos_token_id: int | None,
) -> list[int]:
    """Greedy tokens, at most `max_tokens`, with `eos_token_id` as the last one where it was reached.

    The prefill module writes the KV of `x_1 ... x_{N-1}`; the decode module runs `x_N` and all that follows
    (SUN, arXiv 2603.02599; PrefillShare, arXiv 2602.12029). A prompt of one token needs no prefill module.
    """
    if not prompt_ids:
        raise ValueError("a prompt needs at least one token")
    cache = DynamicCache(config=decode_model.config)
    *written, token = prompt_ids
    if written:
        prefill_model(input_ids=torch.tensor([written]), past_key_values=cache, use_cache=True)
    tokens: list[int] = []
    while len(tokens) < max_tokens and (not tokens or token != eos_token_id):
        output = decode_model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        token = int(output.logits[0, -1].argmax())
        tokens.append(token)
    return tokens


def load_adapted(base_path: str | Path, adapter_path: str | Path, merge: bool = False) -> PreTrainedModel:
    """Base and LoRA adapter in float32: the adapter's arithmetic beside the base's, or merged into it."""
    adapted = PeftModel.from_pretrained(load_module(base_path), adapter_path).eval()
    model: PreTrainedModel = adapted.merge_and_unload() if merge else adapted.get_base_model()
    return model


@torch.inference_mode()
def icarus_reference(
    base: PreTrainedModel,
    adapted: PreTrainedModel,
    prompt_ids: Sequence[int],
    max_tokens: int,
    eos_token_id: int | None,
) -> list[int]:
    """Greedy tokens under ICaRus: the base writes all K and V, the adapter's stream only reads them (rule 8).

    The adapter's row on x_N predicts y_1.
    """
    if not prompt_ids:
        raise ValueError("a prompt needs at least one token")
    written, unwritten = DynamicCache(config=base.config), list(prompt_ids)
    tokens: list[int] = []
    while len(tokens) < max_tokens and (not tokens or tokens[-1] != eos_token_id):
        base(input_ids=torch.tensor([unwritten]), past_key_values=written, use_cache=True)
        cache = ReadOnlyCache(written, past=written.get_seq_length() - 1)
        output = adapted(input_ids=torch.tensor([unwritten[-1:]]), past_key_values=cache, use_cache=True)
        unwritten = [int(output.logits[0, -1].argmax())]
        tokens += unwritten
    return tokens
