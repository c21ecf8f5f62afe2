"""Facts about the cache-conditioned loss, on random tiny Llamas."""

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.cache_conditioned import (
    Batch,
    Recipe,
    cache_conditioned_loss,
    collate,
    prompt_cache,
    response_logits,
    train_only,
)
from finetune.exact_match import exact_match
from finetune.reference import greedy_reference

PAD = 0
PAIRS = [([5, 6, 7, 8], [9, 10, 1]), ([11, 12], [13, 1]), ([14], [15, 16, 17, 1])]


def tiny_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        # Far from the default, so that two random models disagree in their answers.
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def test_one_model_in_both_roles_equals_the_joint_forward() -> None:
    model = tiny_model(0)
    prompt, response = PAIRS[0]
    split = response_logits(model, model, collate([(prompt, response)], PAD))
    joint = model(input_ids=torch.tensor([prompt + response])).logits[:, len(prompt) - 1 : -1]
    assert_close(split, joint)


def test_the_loss_with_one_model_is_the_ordinary_loss_on_the_response() -> None:
    model = tiny_model(0)
    prompt, response = PAIRS[0]
    labels = torch.tensor([[-100] * len(prompt) + response])
    joint = model(input_ids=torch.tensor([prompt + response]), labels=labels).loss
    assert_close(cache_conditioned_loss(model, model, collate([(prompt, response)], PAD)), joint)


def test_padding_changes_no_logit() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    together = response_logits(prefill, decode, collate(PAIRS, PAD))
    for row, pair in enumerate(PAIRS):
        alone = response_logits(prefill, decode, collate([pair], PAD))
        assert_close(together[row, : len(pair[1])], alone[0])


def test_the_prompt_cache_ends_before_the_last_prompt_token() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    batch = collate([([5, 6, 7, 8], [9])], PAD)
    assert prompt_cache(prefill, batch).get_seq_length() == 3
    # What the prefill module would make of x_N reaches nothing.
    with torch.no_grad():
        prefill.base_model.embed_tokens.weight[8] += 1.0
        changed = response_logits(prefill, decode, batch)
        prefill.base_model.embed_tokens.weight[8] -= 1.0
        assert_close(changed, response_logits(prefill, decode, batch), rtol=0, atol=0)


def test_a_prompt_of_one_token_needs_no_prefill_module() -> None:
    decode = tiny_model(1)
    batch = collate([([5], [9, 1])], PAD)
    assert prompt_cache(tiny_model(0), batch).get_seq_length() == 0
    assert_close(response_logits(tiny_model(0), decode, batch), response_logits(decode, decode, batch))


def test_sun_trains_the_prefill_module_through_keys_and_values_alone() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    train_only(Recipe.SUN, prefill, decode)
    cache_conditioned_loss(prefill, decode, collate(PAIRS, PAD)).backward()
    assert all(parameter.grad is None for parameter in decode.parameters())
    first, last = prefill.base_model.layers
    reached = [first.self_attn.q_proj, first.mlp.down_proj, last.self_attn.k_proj, last.self_attn.v_proj]
    assert all(layer.weight.grad.any() for layer in reached)
    # Past the last layer's keys and values there is only the prediction, which a prefill module never makes.
    unreached = [last.self_attn.q_proj, last.self_attn.o_proj, last.mlp.down_proj, prefill.lm_head]
    assert all(layer.weight.grad is None for layer in unreached)
    gradients = [parameter.grad for parameter in prefill.parameters() if parameter.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_prefillshare_trains_the_decode_module_on_a_constant_cache() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    trained = train_only(Recipe.PREFILLSHARE, prefill, decode)
    batch = collate(PAIRS, PAD)
    assert not prompt_cache(prefill, batch).layers[0].keys.requires_grad
    cache_conditioned_loss(prefill, decode, batch).backward()
    assert all(parameter.grad is None for parameter in prefill.parameters())
    assert all(parameter.grad is not None for parameter in trained)


@pytest.mark.parametrize("recipe", Recipe)
def test_training_the_free_side_lowers_the_loss(recipe: Recipe) -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    optimizer = torch.optim.Adam(train_only(recipe, prefill, decode), lr=1e-2)
    # Without the prompt of one token: SUN has no KV there to learn with.
    batch = collate(PAIRS[:2], PAD)
    losses = []
    for _ in range(20):
        loss = cache_conditioned_loss(prefill, decode, batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_a_module_cannot_be_both_trained_and_frozen() -> None:
    model = tiny_model(0)
    with pytest.raises(ValueError, match="needs two modules"):
        train_only(Recipe.SUN, model, model)


@pytest.mark.parametrize("pair", [([], [1]), ([1], [])])
def test_an_empty_side_is_refused(pair: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        collate([pair], PAD)


def test_collate_puts_the_last_prompt_token_in_the_last_column() -> None:
    batch: Batch = collate(PAIRS, PAD)
    assert batch.prompt_ids.tolist() == [[5, 6, 7, 8], [0, 0, 11, 12], [0, 0, 0, 14]]
    assert batch.response_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


def test_exact_match_agrees_with_decoding_step_by_step() -> None:
    prefill, decode = tiny_model(0), tiny_model(1)
    prompts = [[5, 6, 7, 8], [11, 12], [14], [3, 4, 5, 6, 7]]
    right = [(prompt, greedy_reference(prefill, decode, prompt, 5, None)) for prompt in prompts]
    wrong = [(prompt, [*answer[:-1], (answer[-1] + 1) % 24]) for prompt, answer in right]
    result = exact_match(prefill, decode, right + wrong, PAD, batch_size=3)
    assert (result.matched, result.samples, result.accuracy) == (4, 8, 0.5)
