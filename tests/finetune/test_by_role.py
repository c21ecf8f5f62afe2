"""One forward by role gives the logits and gradients of two, on random tiny models of three architectures."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from finetune.objective import Objective, OneForward, TwoForwards, collate_right
from finetune.settings import ALL_LINEARS
from finetune.views import plain_view

PAIRS = [([5, 6, 7, 8], [9, 10, 1]), ([11, 12], [13, 1]), ([14], [15, 16, 17, 1]), ([3, 4, 5], [1])]
ARCHITECTURES = (LlamaConfig, Qwen2Config, Qwen3Config)
Pair = tuple[PreTrainedModel, PreTrainedModel]


def tiny(architecture: type[PreTrainedConfig], seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = architecture(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.5,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def make_pair(architecture: type[PreTrainedConfig], way: str) -> Pair:
    first, second = tiny(architecture, 0), tiny(architecture, 1)
    if way == "full":
        return first, first
    if way in ("sun", "prefillshare"):
        (second if way == "sun" else first).requires_grad_(False)
        return first, second
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(ALL_LINEARS), init_lora_weights=False)
    adapted = get_peft_model(first, config).get_base_model()
    plain = plain_view(adapted)
    return (adapted, plain) if way == "sun-lora" else (plain, adapted)


def results(objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and each trained parameter's gradient; none counts as zero."""
    objective.zero_grad()
    batch = collate_right(PAIRS, 0)
    logits = objective(**batch)
    cross_entropy(logits, batch["labels"][batch["labels"] != -100]).backward()
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    return logits, {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in trained.items()
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("way", ["sun", "prefillshare", "full", "sun-lora", "prefillshare-lora"])
def test_one_forward_gives_the_logits_and_gradients_of_two(
    architecture: type[PreTrainedConfig], way: str
) -> None:
    prefill, decode = make_pair(architecture, way)
    one, one_gradients = results(OneForward(prefill, decode))
    two, two_gradients = results(TwoForwards(prefill, decode, ""))
    assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert one_gradients.keys() == two_gradients.keys()
    assert any(gradient.any() for gradient in two_gradients.values())
    for name, gradient in two_gradients.items():
        assert_close(one_gradients[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["sun", "prefillshare", "sun-lora"])
def test_prompts_of_one_token_leave_the_prefill_module_nothing_to_write(way: str) -> None:
    pairs = [([3], [4, 5, 1]), ([6], [1])]
    prefill, decode = make_pair(LlamaConfig, way)
    logits = OneForward(prefill, decode)(**collate_right(pairs, 0))
    two = TwoForwards(prefill, decode, "")(**collate_right(pairs, 0))
    assert_close(logits, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["sun", "prefillshare", "full", "sun-lora", "prefillshare-lora"])
def test_activations_computed_again_give_the_same_gradients(way: str) -> None:
    objective = OneForward(*make_pair(LlamaConfig, way)).train()
    _, kept = results(objective)
    objective.checkpoint_gradients()
    _, again = results(objective)
    assert any(gradient.any() for gradient in kept.values())
    for name, gradient in kept.items():
        assert_close(again[name], gradient)


def test_in_float64_the_two_forms_differ_by_rounding_alone() -> None:
    prefill, decode = tiny(LlamaConfig, 0).double(), tiny(LlamaConfig, 1).double()
    batch = collate_right(PAIRS, 0)
    one, two = OneForward(prefill, decode)(**batch), TwoForwards(prefill, decode, "")(**batch)
    assert_close(one, two, rtol=0, atol=1e-12)


def test_the_comparison_sees_another_prefill_module_and_swapped_roles() -> None:
    prefill, decode, other = (tiny(LlamaConfig, seed) for seed in range(3))
    batch = collate_right(PAIRS, 0)
    right = TwoForwards(prefill, decode, "")(**batch)
    for wrong in ((other, decode), (decode, decode), (decode, prefill)):
        assert (OneForward(*wrong)(**batch) - right).abs().max() > 0.1


def test_the_frozen_side_stays_in_eval_mode_and_gets_no_gradient() -> None:
    prefill, decode = make_pair(LlamaConfig, "sun")
    objective = OneForward(prefill, decode).train()
    results(objective)
    assert prefill.training and not any(part.training for part in decode.modules())
    assert all(parameter.grad is None for parameter in decode.parameters())


def test_a_view_without_the_adapter_shares_the_weights() -> None:
    adapted, plain = make_pair(LlamaConfig, "sun-lora")
    shared = {parameter.data_ptr() for parameter in adapted.parameters()}
    assert all(parameter.data_ptr() in shared for parameter in plain.parameters())
    ids = torch.tensor([[5, 6, 7]])
    assert_close(plain(ids).logits, tiny(LlamaConfig, 0)(ids).logits)


def test_weights_outside_row_wise_leaves_are_refused() -> None:
    from finetune.views import NotRowWiseError, leaves

    with pytest.raises(NotRowWiseError, match="Conv1d"):
        list(leaves(nn.Sequential(nn.Conv1d(2, 2, 1))))
