"""Contracts name the first difference, and domains change with whatever changes the KV."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from heliostat.errors import ContractError, HeliostatError
from kvtransfer.contract import Contract, Module, check_contract, digest_weights, kv_domain, read_module

CONTRACT = Contract("LlamaForCausalLM", 2, 2, 16, '{"rope_theta": 10000.0}', 128, "tokens")
CHANGED = {
    "architecture": replace(CONTRACT, architecture="Qwen3ForCausalLM"),
    "num_layers": replace(CONTRACT, num_layers=3),
    "num_kv_heads": replace(CONTRACT, num_kv_heads=4),
    "head_size": replace(CONTRACT, head_size=32),
    "rope": replace(CONTRACT, rope='{"rope_theta": 500000.0}'),
    "vocab_size": replace(CONTRACT, vocab_size=256),
    "tokenizer": replace(CONTRACT, tokenizer="other"),
}
CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rope_theta": 10000.0,
    "vocab_size": 128,
}


def write_checkpoint(folder: Path, config: dict[str, object], files: dict[str, bytes]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("field", [field.name for field in fields(Contract)])
def test_a_differing_field_is_named_with_both_values(field: str) -> None:
    changed = CHANGED[field]
    with pytest.raises(ContractError) as caught:
        check_contract("prefill.a", CONTRACT, "decode.b", changed)
    assert str(caught.value) == (
        f"prefill.a and decode.b cannot exchange KV caches: {field} is "
        f"{getattr(CONTRACT, field)} in the one and {getattr(changed, field)} in the other"
    )


def test_the_first_of_two_differences_is_named() -> None:
    changed = replace(CONTRACT, vocab_size=256, num_kv_heads=4)
    with pytest.raises(ContractError) as caught:
        check_contract("a", CONTRACT, "b", changed)
    assert caught.value.field == "num_kv_heads"


def test_equal_contracts_fit() -> None:
    assert check_contract("a", CONTRACT, "b", replace(CONTRACT)) is None  # type: ignore[func-returns-value]


def test_a_checkpoint_gives_its_contract(tmp_path: Path) -> None:
    module = read_module(write_checkpoint(tmp_path / "m", CONFIG, {"model.safetensors": b"weights"}))
    assert replace(module.contract, tokenizer="tokens") == CONTRACT
    assert module.weights == digest_weights(tmp_path / "m")


def test_head_size_and_kv_heads_follow_from_the_configuration(tmp_path: Path) -> None:
    plain = {key: value for key, value in CONFIG.items() if key != "num_key_value_heads"}
    module = read_module(write_checkpoint(tmp_path / "a", plain, {"model.safetensors": b"weights"}))
    assert (module.contract.num_kv_heads, module.contract.head_size) == (4, 16)
    explicit = CONFIG | {"head_dim": 24}
    module = read_module(write_checkpoint(tmp_path / "b", explicit, {"model.safetensors": b"weights"}))
    assert (module.contract.num_kv_heads, module.contract.head_size) == (2, 24)


def test_rope_is_independent_of_the_order_of_keys(tmp_path: Path) -> None:
    scaled = CONFIG | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    turned = dict(reversed((CONFIG | {"rope_scaling": {"factor": 2.0, "type": "linear"}}).items()))
    files = {"model.safetensors": b"weights"}
    left = read_module(write_checkpoint(tmp_path / "a", scaled, files)).contract
    right = read_module(write_checkpoint(tmp_path / "b", turned, files)).contract
    assert left == right
    assert left.rope != CONTRACT.rope


def test_the_weights_digest_is_over_content_whatever_the_files_are_called(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "one", CONFIG, {"a.safetensors": b"first", "b.safetensors": b"second"})
    two = write_checkpoint(tmp_path / "two", CONFIG, {"z.safetensors": b"first", "c.safetensors": b"second"})
    other = write_checkpoint(tmp_path / "other", CONFIG, {"a.safetensors": b"first", "b.safetensors": b"2nd"})
    part = write_checkpoint(tmp_path / "part", CONFIG, {"a.safetensors": b"first"})
    assert digest_weights(one) == digest_weights(two)
    assert len({digest_weights(folder) for folder in (one, other, part)}) == 3


def test_new_weights_of_the_same_size_have_a_new_digest(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", CONFIG, {"model.safetensors": b"old weights"})
    before = digest_weights(folder)
    (folder / "model.safetensors").write_bytes(b"new weights")
    os.utime(folder / "model.safetensors", (1, 1))
    assert digest_weights(folder) != before


def test_the_domain_changes_with_weights_dtype_and_every_field_of_the_contract() -> None:
    module = Module(Path("m"), CONTRACT, "weights")
    domains = [kv_domain(module, "float32"), kv_domain(module, "bfloat16")]
    domains.append(kv_domain(replace(module, weights="other"), "float32"))
    domains += [kv_domain(replace(module, contract=changed), "float32") for changed in CHANGED.values()]
    assert len(set(domains)) == len(domains)


def test_the_domain_does_not_depend_on_the_directory() -> None:
    module = Module(Path("m"), CONTRACT, "weights")
    assert kv_domain(module, "float32") == kv_domain(replace(module, path=Path("n")), "float32")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    folder = write_checkpoint(tmp_path / "m", CONFIG, {"model.safetensors": b"weights"})
    (folder / file).unlink()
    with pytest.raises(HeliostatError, match=file if file != "model.safetensors" else r"\*\.safetensors"):
        read_module(folder)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("{", "config.json: not JSON"),
        ("[]", "config.json: not a JSON object"),
        (json.dumps(CONFIG | {"architectures": None}), "`architectures` is missing"),
        (json.dumps(CONFIG | {"vocab_size": "128"}), "`vocab_size` is '128', not a number"),
        (json.dumps(CONFIG | {"num_hidden_layers": None}), "`num_hidden_layers` is None, not a number"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, config: str, complaint: str) -> None:
    folder = write_checkpoint(tmp_path / "m", CONFIG, {"model.safetensors": b"weights"})
    (folder / "config.json").write_text(config)
    with pytest.raises(HeliostatError, match=complaint):
        read_module(folder)
