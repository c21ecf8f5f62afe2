import json
from pathlib import Path

import pytest

from heliostat.errors import HeliostatError
from simulator.timing import KNOWN, Geometry, geometry_of, kv_bits, weight_bits

LLAMA_8B = KNOWN["meta-llama/Llama-3.1-8B"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [  # as the model cards say
        ("meta-llama/Llama-3.1-8B", 8.03),
        ("Qwen/Qwen3-1.7B", 1.72),
        ("Qwen/Qwen3-8B", 8.19),
        ("Qwen/Qwen3-14B", 14.77),
        ("Qwen/Qwen3-32B", 32.76),
    ],
)
def test_known_geometries_have_the_published_number_of_parameters(name: str, billions: float) -> None:
    assert KNOWN[name].params / 1e9 == pytest.approx(billions, abs=0.006)


def test_kv_of_a_token_is_what_is_published() -> None:
    assert LLAMA_8B.kv_bytes_per_token() == 128 * 1024
    assert KNOWN["Qwen/Qwen3-8B"].kv_bytes_per_token() == 144 * 1024
    assert KNOWN["Qwen/Qwen3-8B"].kv_bytes_per_token(8) == 72 * 1024


def test_an_awq_checkpoint_is_as_large_as_the_published_one() -> None:
    # Qwen/Qwen3-8B-AWQ: 6.1 GB of safetensors, of which 2.5 GB are embeddings and head in 16 bits.
    assert KNOWN["Qwen/Qwen3-8B"].weight_bytes(4) / 1e9 == pytest.approx(6.1, abs=0.05)


def test_weights_take_their_bits() -> None:
    assert LLAMA_8B.weight_bytes(16) == 2 * LLAMA_8B.params
    assert LLAMA_8B.weight_bytes(32) == 4 * LLAMA_8B.params
    head = LLAMA_8B.lm_head_params
    assert LLAMA_8B.weight_bytes(8) == LLAMA_8B.linear_params + 2 * 2 * head


def test_attention_reads_the_context_and_half_of_the_new_tokens() -> None:
    per_pair = 4 * 32 * 32 * 128
    assert LLAMA_8B.attention_flops(1, 1000) == per_pair * 1000.5
    whole = LLAMA_8B.attention_flops(1000, 0)
    parts = LLAMA_8B.attention_flops(400, 0) + LLAMA_8B.attention_flops(600, 400)
    assert parts == whole


def test_a_lora_adapter_counts_in_and_out_of_every_linear_layer() -> None:
    tiny = Geometry(layers=1, hidden=4, heads=2, kv_heads=1, head_size=2, intermediate=8, vocab=10)
    q, k_and_v, o, mlp = 4 + 4, 2 * (4 + 2), 4 + 4, 3 * (4 + 8)
    assert tiny.adapter_params(2) == 2 * (q + k_and_v + o + mlp)


CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 101,
}


def write(folder: Path, **config: object) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))


def test_a_local_directory_comes_before_the_hub(tmp_path: Path) -> None:
    write(tmp_path / "tiny")
    assert geometry_of("tiny", tmp_path) == Geometry(4, 128, 4, 2, 32, 256, 101)


def test_suffixes_of_hub_names_share_a_geometry(tmp_path: Path) -> None:
    for name in ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-8B-AWQ", "Qwen/Qwen3-8B-Instruct-GPTQ-Int4"):
        assert geometry_of(name, tmp_path) == KNOWN["Qwen/Qwen3-8B"]


def test_an_unknown_name_is_refused_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match=r"`acme/x`.*Qwen/Qwen3-8B.*local directory.*config\.json"):
        geometry_of("acme/x", tmp_path)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"hidden_size": None}, "`hidden_size`"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers`.*greater than 0"),
        ({"num_experts": 128}, "`num_experts`.*not modelled"),
    ],
)
def test_a_bad_config_is_refused_with_file_and_key(
    tmp_path: Path, config: dict[str, object], complaint: str
) -> None:
    write(tmp_path / "bad", **config)
    with pytest.raises(HeliostatError, match=rf"bad/config\.json.*{complaint}"):
        geometry_of("bad", tmp_path)


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HeliostatError, match=r"empty/config\.json: cannot be read"):
        geometry_of("empty", tmp_path)


@pytest.mark.parametrize(
    ("name", "engine_args", "bits"),
    [
        ("Qwen/Qwen3-8B", {}, 16),
        ("Qwen/Qwen3-8B", {"quantization": None}, 16),
        ("Qwen/Qwen3-8B", {"quantization": "fp8"}, 8),
        ("Qwen/Qwen3-8B", {"quantization": "awq_marlin"}, 4),
        ("Qwen/Qwen3-8B-AWQ", {}, 4),
        ("Qwen/Qwen3-8B-FP8", {}, 8),
        ("Qwen/Qwen3-8B-GPTQ-Int4", {}, 4),
        ("acme/x-W4A16", {"quantization": "compressed-tensors"}, 4),
        ("acme/x-GPTQ-Int8", {"quantization": "gptq"}, 8),
    ],
)
def test_bits_follow_from_engine_args_or_name(
    tmp_path: Path, name: str, engine_args: dict[str, str | None], bits: int
) -> None:
    assert weight_bits(name, tmp_path, dict(engine_args)) == bits


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "gptq", "bits": 8}, 8),
        ({"quant_method": "awq", "bits": 4}, 4),
        ({"quant_method": "fp8"}, 8),
        (
            {
                "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
            },
            4,
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True}, 8),
    ],
)
def test_the_number_in_a_checkpoint_counts(
    tmp_path: Path, quantization: dict[str, object], bits: int
) -> None:
    write(tmp_path / "module", quantization_config=quantization)
    assert weight_bits("module", tmp_path, {}) == bits


def test_without_quantization_bits_are_those_of_the_dtype(tmp_path: Path) -> None:
    write(tmp_path / "module")
    assert weight_bits("module", tmp_path, {}, "float32") == 32
    assert kv_bits({}, "float32") == 32
    assert kv_bits({"kv_cache_dtype": "fp8_e4m3"}) == 8


def test_an_unknown_quantization_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match=r"`acme/x`.*`squeeze`.*awq"):
        weight_bits("acme/x", tmp_path, {"quantization": "squeeze"})
