"""Facts about the agents' models: they load, they are small, they do what their provenance says."""

import json
import random
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kvtransfer.card import Method, read_card

AGENTS = Path(__file__).parents[2] / "examples" / "agents"
WEIGHTS = AGENTS / "weights"
PROVENANCE = json.loads((AGENTS / "provenance.json").read_text())
SPECIALISTS = ["read", "check", "strict", "novice", "math", "plan", "korean"]
POINTS = 0.08
"""Between the first samples and all of them."""


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(WEIGHTS / "base")


@pytest.fixture(scope="module")
def make_agents(load_example) -> ModuleType:
    return load_example("agents/make_agents.py")


@pytest.fixture(scope="module")
def skills(load_example) -> ModuleType:
    return load_example("agents/skills.py")


@pytest.fixture(scope="module")
def specialists(load_example) -> ModuleType:
    return load_example("agents/specialists.py")


def rendered(*said: str, **told: bool) -> list[int]:
    """Token ids of a chat of user and assistant in turn, ready for the next answer."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(said)]
    text = tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **told)
    return tokenizer()(text).input_ids


def test_provenance_names_the_committed_modules() -> None:
    assert sorted(PROVENANCE["modules"]) == sorted(["base", *SPECIALISTS])
    assert sorted(folder.name for folder in WEIGHTS.iterdir()) == sorted(["base", *SPECIALISTS])


def test_all_weights_together_are_small() -> None:
    sizes = {file.parent.name: file.stat().st_size for file in WEIGHTS.glob("*/*.safetensors")}
    assert sizes["base"] < 3.1e6
    assert all(sizes[name] < 1e6 for name in SPECIALISTS)


@pytest.mark.parametrize("name", SPECIALISTS)
def test_a_specialist_has_its_card(name: str) -> None:
    card = read_card(WEIGHTS / name)
    assert card is not None
    assert card.method is Method.ICARUS
    assert card.metrics["heldout_exact_match"] == PROVENANCE["modules"][name]["heldout"]["exact_match"]


@pytest.mark.parametrize("name", SPECIALISTS)
def test_a_specialist_does_what_its_provenance_says(make_agents: ModuleType, name: str) -> None:
    facts = PROVENANCE["modules"][name]
    samples = make_agents.held_out_samples(facts["skill"], PROVENANCE["seed"])[:100]
    found = make_agents.measure(WEIGHTS / "base", WEIGHTS / name, tokenizer(), samples)
    right = sum(kind["exact_match"] * kind["samples"] for kind in found.values()) / len(samples)
    assert right == pytest.approx(facts["heldout"]["exact_match"], abs=POINTS)


def test_held_out_lists_are_drawn_for_no_training_sample(specialists: ModuleType, skills: ModuleType) -> None:
    rng = random.Random(3)
    for name in specialists.SPECIALISTS:
        for heldout in (False, True):
            for _ in range(30):
                readings = specialists.draw_sample(name, rng, heldout).readings
                assert skills.is_heldout(readings) is heldout


def test_a_thing_with_its_colon_is_a_token_and_a_syllable_is_three() -> None:
    assert tokenizer().tokenize("lamp: 40\n") == ["lamp: ", "4", "0", "\n"]
    assert tokenizer().tokenize("등") == ["<0xEB>", "<0x93>", "<0xB1>"]


@pytest.mark.parametrize(
    "text", ["전등은 40입니다.", "Is there a lamp?", "any other text: 1 + 1 = 2", "é…🙂"]
)
def test_the_tokenizer_keeps_every_text(text: str) -> None:
    assert tokenizer().decode(tokenizer()(text).input_ids) == text


def test_thinking_is_a_token_more() -> None:
    off, on = rendered("hello"), rendered("hello", enable_thinking=True)
    assert on[:-1] == off == rendered("hello", enable_thinking=False)
    assert tokenizer().convert_ids_to_tokens(on[-1]) == "<think>"


def test_a_kept_thought_begins_the_next_prompt_token_for_token() -> None:
    answer = "lamp: 40</think>yes"
    generated = rendered("hello", enable_thinking=True) + tokenizer()(answer + "<|end|>").input_ids
    assert rendered("hello", answer, "next")[: len(generated)] == generated


def test_the_readme_has_the_provenances_figures() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.* ([\d.]+) % \|$", (AGENTS / "README.md").read_text(), re.MULTILINE)
    figures = {
        name: f"{PROVENANCE['modules'][name]['heldout']['exact_match'] * 100:.1f}" for name in SPECIALISTS
    }
    assert dict(rows) == figures
