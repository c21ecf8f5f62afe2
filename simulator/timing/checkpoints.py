"""Which geometry and how many bits a module has that a spec names by directory or by hub name.

No hub is asked: a plan must not need the network. Hub names of well-known models are in `KNOWN`; any other
model works as a local directory that holds its `config.json`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from heliostat.errors import HeliostatError
from simulator.timing.geometry import Geometry, read_config, read_geometry

# From the `config.json` that each of these repositories publishes on the Hugging Face hub.
KNOWN: dict[str, Geometry] = {
    "meta-llama/Llama-3.1-8B": Geometry(32, 4096, 32, 8, 128, 14336, 128256),
    "Qwen/Qwen3-1.7B": Geometry(28, 2048, 16, 8, 128, 6144, 151936, tied_embeddings=True),
    "Qwen/Qwen3-8B": Geometry(36, 4096, 32, 8, 128, 12288, 151936),
    "Qwen/Qwen3-14B": Geometry(40, 5120, 40, 8, 128, 17408, 151936),
    "Qwen/Qwen3-32B": Geometry(64, 5120, 64, 8, 128, 25600, 151936),
}

BITS_BY_SUFFIX: dict[str, int] = {
    "awq": 4,
    "gptq-int4": 4,
    "gptq-int8": 8,
    "w4a16": 4,
    "w8a16": 8,
    "w8a8": 8,
    "int4": 4,
    "int8": 8,
    "fp8": 8,
    "nvfp4": 4,
}
_TUNED = ("base", "instruct")
_SUFFIX = re.compile("[-.](" + "|".join((*BITS_BY_SUFFIX, *_TUNED)) + ")$", re.IGNORECASE)

BITS_BY_METHOD: dict[str, int] = {
    "awq": 4,
    "awq_marlin": 4,
    "gptq": 4,
    "gptq_marlin": 4,
    "bitsandbytes": 4,
    "fp8": 8,
    "fbgemm_fp8": 8,
    "modelopt": 8,
    "modelopt_fp4": 4,
    "compressed-tensors": 8,
}
"""vLLM's `quantization`, where nothing else says how many bits: what each method has by default."""

_VARYING = ("gptq", "gptq_marlin", "bitsandbytes", "compressed-tensors")
"""Methods of several widths: a suffix of the name, if it has one, is nearer to the truth than the default."""

BITS_BY_DTYPE: dict[str, int] = {"float32": 32, "bfloat16": 16, "float16": 16}


def geometry_of(name: str, directory: Path) -> Geometry:
    """The geometry of a module: `directory / name` if that is a checkpoint directory, else a known hub name.

    Suffixes of hub names that do not change the geometry (-Base, -Instruct, -AWQ, -FP8, -GPTQ-Int4) are
    ignored. Raises HeliostatError that says what is known.
    """
    if (directory / name).is_dir():
        return read_geometry(directory / name)
    stem = name
    while stem not in KNOWN and (match := _SUFFIX.search(stem)):
        stem = stem[: match.start()]
    if stem not in KNOWN:
        raise HeliostatError(
            f"the geometry of `{name}` is not known: it is no directory, and the hub names known here are "
            f"{', '.join(KNOWN)} (also with -Base, -Instruct, -AWQ, -FP8 or -GPTQ-Int4 behind); a local "
            "directory that holds the model's config.json works too"
        )
    return KNOWN[stem]


def weight_bits(
    name: str, directory: Path, engine_args: Mapping[str, JsonValue], dtype: str = "bfloat16"
) -> int:
    """Bits of one weight in the linear layers: from the first of these that says it.

    1. the number in `quantization_config` of `directory / name / config.json`, because there it is a fact;
    2. vLLM's `quantization` in `engine_args`;  3. the `quant_method` of that same `quantization_config`;
    4. the suffix of the name (-AWQ, -GPTQ-Int4, -FP8, -W4A16);  5. `dtype`, as in `Family.dtype`.

    Raises HeliostatError for a method that is not known.
    """
    config = read_config(directory / name) if (directory / name / "config.json").is_file() else {}
    checkpoint = config.get("quantization_config")
    quantized = checkpoint if isinstance(checkpoint, dict) else {}
    if (number := _bits_in(quantized)) is not None:
        return number
    for method in (engine_args.get("quantization"), quantized.get("quant_method")):
        if method is not None:
            return _bits_of_method(method, name)
    by_suffix = _bits_of_suffix(name)
    return _bits_of_dtype(dtype) if by_suffix is None else by_suffix


def kv_bits(engine_args: Mapping[str, JsonValue], dtype: str = "bfloat16") -> int:
    """Bits of one number in the KV cache: vLLM's `kv_cache_dtype`, else the family's `dtype`."""
    cache = engine_args.get("kv_cache_dtype", "auto")
    if isinstance(cache, str) and cache.startswith("fp8"):
        return 8
    return _bits_of_dtype(dtype if cache == "auto" else str(cache))


def _bits_in(quantized: Mapping[str, JsonValue]) -> int | None:
    """The number of bits that a `quantization_config` names: AWQ's and GPTQ's `bits`, `num_bits` of the
    weights in the first group of compressed-tensors, or bitsandbytes' two flags."""
    if isinstance(bits := quantized.get("bits"), int):
        return bits
    groups = quantized.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and isinstance(bits := weights.get("num_bits"), int):
            return bits
    for flag, width in (("load_in_4bit", 4), ("load_in_8bit", 8)):
        if quantized.get(flag) is True:
            return width
    return None


def _bits_of_method(method: JsonValue, name: str) -> int:
    if not isinstance(method, str) or method not in BITS_BY_METHOD:
        raise HeliostatError(
            f"`{name}`: how many bits the quantization `{method}` takes is not known; known are "
            f"{', '.join(BITS_BY_METHOD)}, and a config.json whose quantization_config says `bits`"
        )
    by_suffix = _bits_of_suffix(name) if method in _VARYING else None
    return BITS_BY_METHOD[method] if by_suffix is None else by_suffix


def _bits_of_suffix(name: str) -> int | None:
    match = _SUFFIX.search(name)
    return BITS_BY_SUFFIX.get(match[1].lower()) if match else None


def _bits_of_dtype(dtype: str) -> int:
    if dtype not in BITS_BY_DTYPE:
        raise HeliostatError(f"no dtype `{dtype}`; there are {', '.join(BITS_BY_DTYPE)}")
    return BITS_BY_DTYPE[dtype]
