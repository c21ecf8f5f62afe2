"""Writes a quantized module as a checkpoint that vLLM loads: compressed-tensors, `pack-quantized`."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from compressed_tensors.compressors.pack_quantized import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from finetune.quantize_grid import Codes, Grid
from heliostat.errors import HeliostatError

_REPLACED = ("config.json", "heliostat.json")
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` at the end; on any error nothing remains.

    Raises HeliostatError if `out` exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HeliostatError(f"{out}: exists and is not empty; choose another --out, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        inner = Path(temporary) / out.name  # with the usual permissions, which a temporary directory lacks
        inner.mkdir()
        yield inner
        inner.replace(out)


def write_checkpoint(
    base: Path, folder: Path, model: PreTrainedModel, quantized: Mapping[str, Codes], grid: Grid
) -> None:
    """Weights, config, and the base's other files byte for byte: the tokenizer's digest must be equal."""
    for file in base.iterdir():
        if file.is_file() and file.name not in _REPLACED and not file.name.endswith(_WEIGHTS):
            shutil.copyfile(file, folder / file.name)
    config = json.loads((base / "config.json").read_text())
    config.pop("torch_dtype", None)  # the old name of `dtype`
    config |= {"dtype": _name(grid.dtype), "quantization_config": _quantization_config(grid)}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_torch_state_dict(_state(model, quantized, grid), folder)
    for file in folder.glob("*.safetensors"):  # written readable by their owner alone
        file.chmod((folder / "config.json").stat().st_mode)


def _state(model: PreTrainedModel, quantized: Mapping[str, Codes], grid: Grid) -> dict[str, Tensor]:
    state = {}
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for key, value in model.state_dict().items():
        name = key.removesuffix(".weight")
        if name in quantized:
            codes = quantized[name]
            state[f"{name}.weight_packed"] = pack_to_int32(codes.codes, grid.bits)
            state[f"{name}.weight_scale"] = codes.scale
            state[f"{name}.weight_shape"] = torch.tensor(codes.codes.shape)
        elif key not in tied:
            state[key] = value.to(grid.dtype)
    return state


def _quantization_config(grid: Grid) -> dict[str, object]:
    weights = QuantizationArgs(
        num_bits=grid.bits, type="int", symmetric=True, strategy="group", group_size=grid.group_size
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format="pack-quantized")
    config = QuantizationConfig(
        config_groups={"group_0": scheme},
        format="pack-quantized",
        quantization_status="compressed",
        ignore=["lm_head"],
    )
    written: dict[str, object] = json.loads(config.model_dump_json())
    return written


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
