"""ICaRus: the base writes all keys and values; adapters only read them."""

import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from finetune.objective import Icarus, collate_right
from finetune.reference import greedy_reference, icarus_reference
from finetune.settings import ICARUS_LINEARS
from finetune.views import plain_view

PROMPT = [5, 6, 7, 8]


def pair(trained: bool) -> tuple[PreTrainedModel, PreTrainedModel]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
    )
    lora = LoraConfig(r=4, target_modules=list(ICARUS_LINEARS), init_lora_weights=not trained)
    adapted = get_peft_model(LlamaForCausalLM(config).eval(), lora).get_base_model()
    return plain_view(adapted), adapted


def test_an_adapter_that_changes_nothing_gives_the_plain_bases_tokens() -> None:
    base, adapted = pair(trained=False)
    assert icarus_reference(base, adapted, PROMPT, 8, None) == greedy_reference(base, base, PROMPT, 8, None)


def test_a_trained_adapter_changes_tokens() -> None:
    base, adapted = pair(trained=True)
    assert icarus_reference(base, adapted, PROMPT, 8, None) != greedy_reference(base, base, PROMPT, 8, None)


def test_a_next_turn_continues_as_a_fresh_prompt_would() -> None:
    base, adapted = pair(trained=True)
    whole = icarus_reference(base, adapted, PROMPT, 8, None)
    assert icarus_reference(base, adapted, PROMPT + whole[:4], 4, None) == whole[4:]


def test_training_computes_the_logits_that_decoding_picks_from() -> None:
    base, adapted = pair(trained=True)
    pairs = [(prompt, icarus_reference(base, adapted, prompt, 5, None)) for prompt in (PROMPT, [9], [3, 4])]
    batch = collate_right(pairs, 0)
    logits = Icarus(base, adapted)(**batch)
    assert_close(logits.argmax(-1), batch["labels"][batch["labels"] != -100])


def test_only_the_adapter_gets_gradients() -> None:
    base, adapted = pair(trained=True)
    Icarus(base, adapted)(**collate_right([(PROMPT, [9, 1])], 0)).sum().backward()
    reached = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert reached and all("lora_" in name for name in reached)
