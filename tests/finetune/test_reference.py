"""Facts about the exactness reference, on random tiny Llamas."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.reference import greedy_reference, load_module

PROMPT = [5, 6, 7, 8]


def tiny_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def generate(model: LlamaForCausalLM, prompt: list[int], max_tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False, pad_token_id=0
    )
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("prompt", [[5], [5, 6], PROMPT, list(range(1, 20))])
def test_one_model_in_both_roles_equals_generate(prompt: list[int]) -> None:
    model = tiny_model(0)
    assert greedy_reference(model, model, prompt, 8, None) == generate(model, prompt, 8)


def test_two_models_equal_a_pass_over_the_whole_text_with_the_prompt_kv_replaced() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    answer = greedy_reference(prefill, decode, PROMPT, 6, None)
    for step in range(6):
        cache = prefill(input_ids=torch.tensor([PROMPT[:-1]]), use_cache=True).past_key_values
        ids = torch.tensor([[PROMPT[-1], *answer[:step]]])
        assert decode(input_ids=ids, past_key_values=cache).logits[0, -1].argmax() == answer[step]


def test_both_modules_shape_the_answer() -> None:
    first, second = tiny_model(0), tiny_model(1)
    pairs = [(first, first), (first, second), (second, first), (second, second)]
    assert len({tuple(greedy_reference(*pair, PROMPT, 8, None)) for pair in pairs}) == 4


def test_a_prompt_of_one_token_is_the_decode_module_alone() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    assert greedy_reference(prefill, decode, [5], 8, None) == generate(decode, [5], 8)


def test_the_end_token_is_the_last_one_returned() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    free = greedy_reference(prefill, decode, PROMPT, 8, None)
    end = free[3]
    assert greedy_reference(prefill, decode, PROMPT, 8, end) == free[: free.index(end) + 1]


def test_an_end_token_that_closes_the_prompt_does_not_stop_the_answer() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    assert greedy_reference(prefill, decode, PROMPT, 1, PROMPT[-1])


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        greedy_reference(tiny_model(0), tiny_model(1), [], 8, None)


def test_a_checkpoint_of_another_precision_loads_in_float32(tmp_path: Path) -> None:
    tiny_model(0).to(torch.bfloat16).save_pretrained(tmp_path)
    model = load_module(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training
