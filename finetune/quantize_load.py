"""Loads a quantized module as a dense float32 model: to train against it (QSUN), and for the reference."""

import json
from pathlib import Path

import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedModel

from heliostat.errors import HeliostatError

_PACKED = ".weight_packed"
_PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")


def is_quantized(path: str | Path) -> bool:
    """Whether the checkpoint says that its weights are compressed."""
    config = Path(path) / "config.json"
    return config.is_file() and "quantization_config" in json.loads(config.read_text())


def load_dequantized(path: str | Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The module with the weights that vLLM's kernel multiplies with, dense, in float32, in eval mode.

    Reads compressed-tensors checkpoints of integers (`pack-quantized`), ours and llm-compressor's. `dtype` is
    the run dtype, the one in config.json unless given: `(q - zero) * scale` is rounded to it, and so are the
    tensors that are not quantized. What remains different from vLLM are activations. Raises HeliostatError.
    """
    folder = Path(path)
    scheme = _scheme(folder)
    config = AutoConfig.from_pretrained(folder)
    dtype = dtype or config.dtype
    if dtype not in (torch.bfloat16, torch.float16):
        raise HeliostatError(
            f"{folder / 'config.json'}: `dtype` is {dtype}; the kernel runs bfloat16 and float16, say which"
        )
    del config.quantization_config  # what is saved from this model is dense
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None, config=config, state_dict=_dense(_tensors(folder), scheme, dtype), dtype=torch.float32
    )
    return model.eval()


def _scheme(folder: Path) -> QuantizationScheme:
    file = folder / "config.json"
    if not file.is_file():
        raise HeliostatError(f"{file}: missing; is this a Hugging Face checkpoint?")
    written = json.loads(file.read_text()).get("quantization_config")
    if written is None:
        raise HeliostatError(
            f"{file}: no `quantization_config`; make a quantized module with `heliostat quantize`"
        )
    try:
        config = QuantizationConfig.model_validate(written)
    except ValidationError as error:
        raise HeliostatError(f"{file}: `quantization_config`: {error.errors()[0]['msg']}") from error
    groups = list(config.config_groups.values())
    if config.format != "pack-quantized" or len(groups) != 1 or isinstance(groups[0], list):
        raise HeliostatError(
            f"{file}: `quantization_config.format` is {config.format} with {len(groups)} groups; "
            "Heliostat reads `pack-quantized` with one"
        )
    scheme: QuantizationScheme = groups[0]
    return scheme


def _tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise HeliostatError(f"{folder}: no *.safetensors file; Heliostat reads safetensors checkpoints")
    return {key: value for file in files for key, value in load_file(file).items()}


def _dense(tensors: dict[str, Tensor], scheme: QuantizationScheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state dict of the dense model; consumes `tensors`."""
    dense = {}
    for name in [key.removesuffix(_PACKED) for key in tensors if key.endswith(_PACKED)]:
        parts = {part: tensors.pop(f"{name}.{part}") for part in _PARTS if f"{name}.{part}" in tensors}
        parts["weight_scale"] = parts["weight_scale"].to(dtype)
        dense[f"{name}.weight"] = PackedQuantizationCompressor.decompress(parts, scheme)["weight"].float()
    return dense | {name: value.to(dtype).float() for name, value in tensors.items()}
