"""Facts about a quantized module on disk, made of the quickstart base."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.quantize import QuantizeSettings, quantize
from finetune.quantize_layers import QuantizeMethod
from finetune.quantize_load import load_dequantized
from finetune.reference import load_module
from heliostat.errors import HeliostatError
from kvtransfer.card import Method, read_card
from kvtransfer.contract import check_contract, kv_domain, read_module

BASE = Path(__file__).parents[2] / "examples" / "quickstart" / "weights" / "base"
RTN = QuantizeSettings(QuantizeMethod.RTN)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "base-4bit"
    quantize(BASE, out, RTN)
    return out


@pytest.fixture
def one_layer(tmp_path: Path) -> Path:
    """The base without all layers but the first, so that calibration takes no time."""
    folder = tmp_path / "one-layer"
    shutil.copytree(BASE, folder)
    config = json.loads((BASE / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    tensors = load_file(BASE / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if ".layers." not in name or ".layers.0." in name}
    save_file(kept, folder / "model.safetensors")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"copy {'abcdefgh'[i:]}", "response": "x"}) + "\n" for i in range(6))
    )
    return file


def test_it_is_of_the_family_but_not_of_the_domain(made: Path) -> None:
    base, module = read_module(BASE), read_module(made)
    check_contract("base", base.contract, "quantized", module.contract)
    assert kv_domain(base, "bfloat16") != kv_domain(module, "bfloat16")


def test_every_file_but_weights_and_config_is_the_bases(made: Path) -> None:
    names = {file.name for file in BASE.iterdir()} - {"model.safetensors", "config.json"}
    assert "tokenizer.json" in names
    assert all((made / name).read_bytes() == (BASE / name).read_bytes() for name in names)


def test_its_card_names_the_base_and_what_was_lost(made: Path) -> None:
    card = read_card(made)
    assert card is not None
    assert (card.method, card.role, card.base) == (Method.QUANTIZED, "decode", read_module(BASE).weights)
    assert (card.metrics["bits"], card.metrics["group_size"]) == (4, 32)
    assert 0.05 < card.metrics["mean_relative_weight_error"] < 0.15


def test_embeddings_and_output_head_are_only_rounded_to_the_run_dtype(made: Path) -> None:
    stored, base = load_file(made / "model.safetensors"), load_file(BASE / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
        assert torch.equal(stored[name], base[name].to(torch.bfloat16))


def test_loaded_weights_are_codes_times_scale_in_the_run_dtype(made: Path) -> None:
    stored, model = load_file(made / "model.safetensors"), load_dequantized(made)
    name = "model.layers.2.mlp.down_proj"
    packed, scale = stored[f"{name}.weight_packed"], stored[f"{name}.weight_scale"]
    nibbles = (packed[:, :, None] >> torch.arange(0, 32, 4)) & 15
    values = (nibbles.flatten(1) - 8) * scale.repeat_interleave(32, dim=1)
    assert values.dtype == torch.bfloat16
    assert torch.equal(model.get_submodule(name).weight, values.float())


def test_what_is_saved_from_a_loaded_module_is_dense(made: Path, tmp_path: Path) -> None:
    model = load_dequantized(made)
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    again = load_module(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("method", [QuantizeMethod.AWQ, QuantizeMethod.GPTQ])
def test_calibrated_methods_say_how_far_outputs_are_off(
    method: QuantizeMethod, one_layer: Path, data: Path, tmp_path: Path
) -> None:
    card = quantize(one_layer, tmp_path / "out", QuantizeSettings(method), data)
    assert 0 < card.metrics["mean_relative_output_error"] < card.metrics["mean_relative_weight_error"]
    assert card.training["samples"] == 6


def test_a_calibrated_method_without_data_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match="--method awq needs calibration prompts: add --data"):
        quantize(BASE, tmp_path / "out", QuantizeSettings(QuantizeMethod.AWQ))


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(HeliostatError, match="exists and is not empty"):
        quantize(BASE, tmp_path, RTN)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_base_that_is_no_checkpoint_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match=r"config\.json: missing"):
        quantize(tmp_path / "nothing", tmp_path / "out", RTN)


def test_a_quantized_base_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match="is quantized already"):
        quantize(made, tmp_path / "out", RTN)


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"architectures": ["GemmaForCausalLM"]}))
    with pytest.raises(HeliostatError, match="`architectures` is GemmaForCausalLM"):
        quantize(base, tmp_path / "out", RTN)


def test_an_error_midway_leaves_nothing_behind(tmp_path: Path, data: Path) -> None:
    """Sizes and data are only seen when the new folder is there already."""
    data.write_text("not json\n")
    with pytest.raises(HeliostatError, match="inputs, not a multiple of --group-size 48"):
        quantize(BASE, tmp_path / "out", QuantizeSettings(QuantizeMethod.RTN, group_size=48))
    with pytest.raises(HeliostatError, match=r"prompts.jsonl:1: not JSON"):
        quantize(BASE, tmp_path / "out", QuantizeSettings(QuantizeMethod.GPTQ), data)
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_a_dense_checkpoint_is_not_loaded_as_quantized() -> None:
    with pytest.raises(HeliostatError, match="no `quantization_config`"):
        load_dequantized(BASE)
