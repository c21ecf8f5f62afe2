"""Facts about the committed quickstart family: it loads, it is small, it does what its provenance says."""

import json
from functools import cache
from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from finetune.exact_match import exact_match
from finetune.reference import greedy_reference, load_module

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
WEIGHTS = QUICKSTART / "weights"
PROVENANCE = json.loads((QUICKSTART / "provenance.json").read_text())
MODULES = ["base", "home-prefill", "mirror-prefill", "spell-decode"]
TASKS = {"base": "base", "home-prefill": "home", "mirror-prefill": "mirror", "spell-decode": "spell"}


@cache
def module(name: str) -> PreTrainedModel:
    return load_module(WEIGHTS / name)


@cache
def tokenizer(name: str = "base") -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(WEIGHTS / name)


def heldout(task: str) -> list[dict[str, str]]:
    lines = (QUICKSTART / "heldout" / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def chat_ids(text: str) -> list[int]:
    """Token ids of a chat with one user message, ready for the answer."""
    message = [{"role": "user", "content": text}]
    rendered = tokenizer().apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return tokenizer()(rendered).input_ids


def accuracy(prefill: str, decode: str, task: str) -> float:
    pairs = [
        (chat_ids(line["prompt"]), tokenizer()(line["response"] + "<|end|>").input_ids)
        for line in heldout(task)
    ]
    return exact_match(module(prefill), module(decode), pairs, tokenizer().pad_token_id).accuracy


def test_provenance_names_the_committed_modules() -> None:
    folders = sorted(folder.name for folder in WEIGHTS.iterdir())
    assert sorted(PROVENANCE["modules"]) == folders == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_checkpoint_is_complete_and_small(name: str) -> None:
    files = {file.name: file.stat().st_size for file in (WEIGHTS / name).iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= files.keys()
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= files.keys()
    assert sum(files.values()) <= 3_000_000
    assert module(name).num_parameters() == PROVENANCE["modules"][name]["parameters"]


@pytest.mark.parametrize("name", MODULES)
def test_generation_stops_at_the_end_token(name: str) -> None:
    generation = json.loads((WEIGHTS / name / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer(name).eos_token_id
    assert tokenizer(name).eos_token == tokenizer(name).pad_token == "<|end|>"


def test_every_module_has_the_same_tokenizer() -> None:
    assert len({(WEIGHTS / name / "tokenizer.json").read_bytes() for name in MODULES}) == 1
    assert len({tokenizer(name).chat_template for name in MODULES}) == 1


def test_printable_text_round_trips_one_token_a_character() -> None:
    text = "".join(map(chr, range(32, 127))) + "\n two  spaces\n"
    ids = tokenizer()(text).input_ids
    assert len(ids) == len(text)
    assert tokenizer().decode(ids) == text


def test_an_unknown_character_is_one_unknown_token() -> None:
    assert tokenizer()("é").input_ids == [tokenizer().unk_token_id]


def test_the_chat_template_renders_what_training_used() -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "copy abcd"},
        {"role": "assistant", "content": "abcd"},
        {"role": "tool", "content": "reverse abcd"},
    ]
    rendered = tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|system|>be kind<|user|>copy abcd<|assistant|>abcd<|end|><|user|>reverse abcd<|assistant|>"
    )
    ids = tokenizer().apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == tokenizer()(rendered).input_ids


def test_the_chat_template_refuses_an_unknown_role() -> None:
    with pytest.raises(TemplateError, match="Unknown role poet"):
        tokenizer().apply_chat_template([{"role": "poet", "content": "o"}], tokenize=False)


@pytest.mark.parametrize("name", MODULES)
def test_the_recorded_accuracy_holds_on_the_heldout_lines(name: str) -> None:
    facts = PROVENANCE["modules"][name]
    assert len(heldout(TASKS[name])) == 200
    assert facts["heldout"]["samples"] >= 500
    measured = accuracy(facts["pair"]["prefill"], facts["pair"]["decode"], TASKS[name])
    assert measured == pytest.approx(facts["heldout"]["exact_match"], abs=0.02)


@pytest.mark.parametrize("task", ["home", "mirror", "spell"])
def test_the_controls_are_recorded_as_clearly_worse(task: str) -> None:
    controls = PROVENANCE["controls"][task]
    assert controls["full"]["exact_match"] >= 0.99
    for control in ("base", "naive_full_prefill_base_decode", "naive_base_prefill_full_decode"):
        assert controls[control]["samples"] >= 500
        assert controls[control]["exact_match"] <= 0.2


@pytest.mark.parametrize("task", ["home", "mirror", "spell"])
def test_the_base_alone_cannot_do_a_module_task(task: str) -> None:
    assert accuracy("base", "base", task) <= 0.05


def test_the_reference_gives_a_call_for_a_sentence() -> None:
    answer = greedy_reference(
        module("home-prefill"), module("base"), chat_ids("turn my lamp to 40"), 32, tokenizer().eos_token_id
    )
    assert tokenizer().decode(answer) == "set(lamp,40)<|end|>"
