"""An adapter is what its weights and settings are, wherever it lies."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from heliostat.errors import HeliostatError
from heliostat.wire import Adapter
from kvtransfer.adapter import KEYS_AND_VALUES, read_adapter
from kvtransfer.card import CARD_FILE, Method, ModuleCard, write_card

CONFIG: dict[str, object] = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "use_rslora": False,
    "target_modules": ["q_proj", "o_proj"],
    "base_model_name_or_path": "org/base",
}


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a test's adapters are written."""

    root: Path

    def adapter(self, name: str, weights: str = "weights", **config: object) -> Path:
        path = self.root / name
        path.mkdir()
        (path / "adapter_config.json").write_text(json.dumps(CONFIG | config))
        (path / "adapter_model.safetensors").write_text(weights)
        return path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_an_adapter_gives_its_rank_its_targets_and_its_reference(folder: Folder) -> None:
    path = folder.adapter("a")
    adapter = read_adapter(path)
    assert (adapter.rank, adapter.targets, adapter.card) == (8, {"q_proj", "o_proj"}, None)
    assert adapter.reference == Adapter(adapter.digest, str(path))
    assert len(adapter.digest) == 16


def test_an_adapter_comes_with_its_card(folder: Folder) -> None:
    card = ModuleCard(
        method=Method.ICARUS, role="decode", kind="adapter", base="b", partner="b", tokenizer="t"
    )
    path = folder.adapter("a")
    plain = read_adapter(path).digest
    write_card(path, card)
    assert read_adapter(path).card == card
    assert read_adapter(path).digest == plain, "what is said of an adapter does not change it"


@pytest.mark.parametrize(
    "change",
    [
        {"r": 16},
        {"lora_alpha": 32},
        {"use_rslora": True},
        {"target_modules": ["q_proj", "o_proj", "gate_proj"]},
    ],
    ids=str,
)
def test_whatever_changes_its_numbers_changes_its_digest(folder: Folder, change: dict[str, object]) -> None:
    plain = read_adapter(folder.adapter("a")).digest
    assert read_adapter(folder.adapter("b", **change)).digest != plain
    assert read_adapter(folder.adapter("c", "other weights")).digest != plain


@pytest.mark.parametrize(
    "change",
    [
        {"base_model_name_or_path": "elsewhere"},
        {"target_modules": ["o_proj", "q_proj"]},
        {"lora_dropout": 0.1},
    ],
    ids=str,
)
def test_where_it_lies_and_how_it_is_written_down_does_not(folder: Folder, change: dict[str, object]) -> None:
    left, right = read_adapter(folder.adapter("a")), read_adapter(folder.adapter("b", **change))
    assert left.digest == right.digest
    assert left.path != right.path


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("{", "not JSON: "),
        ("[]", "peft_type is None; only LORA can be served"),
        (json.dumps(CONFIG | {"peft_type": "IA3"}), "peft_type is 'IA3'; only LORA can be served"),
        (json.dumps(CONFIG | {"r": "8"}), "`r` must be a number and `target_modules` a list of names"),
        (json.dumps(CONFIG | {"target_modules": "all-linear"}), "`r` must be a number and `target_modules`"),
        (json.dumps(CONFIG | {"target_modules": []}), "`r` must be a number and `target_modules`"),
    ],
)
def test_a_wrong_configuration_is_named(folder: Folder, config: str, complaint: str) -> None:
    path = folder.adapter("a")
    (path / "adapter_config.json").write_text(config)
    with pytest.raises(HeliostatError) as caught:
        read_adapter(path)
    assert str(caught.value).startswith(f"{path / 'adapter_config.json'}: {complaint}")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError) as caught:
        read_adapter(tmp_path / "none")
    file = tmp_path / "none" / "adapter_config.json"
    assert str(caught.value) == f"{file}: missing; is this a LoRA adapter as PEFT writes it?"


def test_weights_in_another_format_are_refused(folder: Folder) -> None:
    path = folder.adapter("a")
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(HeliostatError, match=r"no \*\.safetensors file"):
        read_adapter(path)


def test_a_broken_card_is_no_missing_card(folder: Folder) -> None:
    path = folder.adapter("a")
    (path / CARD_FILE).write_text("{}")
    with pytest.raises(HeliostatError, match=r"heliostat\.json: method: Field required"):
        read_adapter(path)


@pytest.mark.parametrize("name", ["k_proj", "v_proj", "qkv_proj"])
def test_keys_and_values_come_from_these_modules(name: str) -> None:
    assert name in KEYS_AND_VALUES


def test_targets_are_known_by_the_end_of_their_names(folder: Folder) -> None:
    """PEFT matches them so: a longer name changes keys just as well."""
    path = folder.adapter("a", target_modules=["self_attn.k_proj", "model.layers.0.self_attn.v_proj"])
    assert read_adapter(path).targets == KEYS_AND_VALUES - {"qkv_proj"}
