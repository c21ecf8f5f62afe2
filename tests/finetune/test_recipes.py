"""Whole runs of a few steps on the quickstart base: what they write, and that they repeat themselves."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.data import make_encoder, read_samples
from finetune.recipes import finetune_pairs, out_of_memory_said, train_pairs
from finetune.settings import DataSettings, Lora, Settings
from heliostat.errors import HeliostatError
from kvtransfer.card import Method, read_card
from kvtransfer.contract import read_module

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
BASE = QUICKSTART / "weights" / "base"
LORA = Lora(rank=4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def pairs(count: int = 32) -> list[tuple[list[int], list[int]]]:
    data = DataSettings(str(QUICKSTART / "heldout" / "home.jsonl"))
    return list(read_samples(data, make_encoder(BASE), 2048, 0).train[:count])  # type: ignore[arg-type]


def settings(out: Path, **changes: object) -> Settings:
    plain = Settings(Method.SUN, str(BASE), out, lora=LORA, steps=4, batch_size=8, learning_rate=5e-3)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_sun_adapter_lowers_the_held_out_loss(tmp_path: Path) -> None:
    samples = pairs()
    losses = [
        train_pairs(settings(tmp_path / "out", steps=steps), samples, samples)[1]["heldout_loss"]
        for steps in (1, 12)
    ]
    assert losses[1] < 0.8 * losses[0]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        finetune_pairs(settings(out, seed=seed), pairs())
        found.append((out / "adapter_model.safetensors").read_bytes())
    assert found[0] == found[1] != found[2]


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finetune_pairs(settings(whole, save_every=2), pairs())

    def stop(line: str) -> None:
        if "held-out" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_pairs(settings(broken, save_every=2, eval_every=3), pairs(), pairs(4), stop)
    assert not broken.exists() and (tmp_path / "broken.partial" / "checkpoint-2").is_dir()
    with pytest.raises(HeliostatError, match="seed is 5"):
        finetune_pairs(settings(broken, resume=True, seed=5), pairs())
    finetune_pairs(settings(broken, save_every=2, resume=True), pairs())
    left, right = (load_file(out / "adapter_model.safetensors") for out in (whole, broken))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert not (tmp_path / "broken.partial").exists()


def test_full_weights_are_a_checkpoint_of_the_bases_family(tmp_path: Path) -> None:
    out = tmp_path / "out"
    card = finetune_pairs(settings(out, lora=None, method=Method.PREFILL_SHARE, steps=1), pairs(8), pairs(8))
    base, made = read_module(BASE), read_module(out)
    assert made.contract == base.contract and made.weights != base.weights
    assert read_card(out) == card
    assert (card.role, card.kind, card.base, card.partner) == (
        "decode",
        "weights",
        base.weights,
        base.weights,
    )
    assert card.metrics["heldout_samples"] == 8


def test_an_adapter_names_its_base_without_a_path(tmp_path: Path) -> None:
    finetune_pairs(settings(tmp_path / "out", method=Method.ICARUS, steps=1), pairs(8))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert not {"k_proj", "v_proj"} & set(config["target_modules"])


def test_a_folder_that_is_taken_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(HeliostatError, match="exists and is not empty"):
        finetune_pairs(settings(tmp_path), pairs(8))
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ('{"prompt": "a"}', "response is missing"),
        ('{"messages": []}', "not a list"),
        ("1", "not an obj"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n' + line + "\n")
    with pytest.raises(HeliostatError, match=f"data.jsonl:2: .*{problem}"):
        read_samples(DataSettings(str(file)), make_encoder(BASE), 2048, 0)


def test_a_chat_and_its_prompt_and_response_give_the_same_tokens() -> None:
    encoder = make_encoder(BASE)
    chat = [{"role": "user", "content": "copy ab"}, {"role": "assistant", "content": "ab"}]
    pair = encoder.encode("here", {"prompt": "copy ab", "response": "ab"})
    assert pair == encoder.encode("here", {"messages": chat})
    assert encoder.tokenizer.decode(pair[0]) == "<|user|>copy ab<|assistant|>"
    assert encoder.tokenizer.decode(pair[1]) == "ab<|end|>"


def test_icarus_refuses_keys_and_values() -> None:
    with pytest.raises(HeliostatError, match="k_proj"):
        Settings(Method.ICARUS, str(BASE), Path("out"), lora=Lora(targets=("q_proj", "k_proj"))).check()


def test_out_of_memory_says_what_to_lower() -> None:
    """The CPU's allocator refuses with a bare RuntimeError."""
    with (
        pytest.raises(HeliostatError, match="lower --batch-size and raise --gradient-accumulation"),
        out_of_memory_said(),
    ):
        torch.empty(2**55)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shape"), out_of_memory_said():
        torch.zeros(3).view(2, 2)
