"""Can two modules exchange KV caches? Their contracts are compared field by field (rule 7).

vLLM's NIXL handshake hashes the model *path* instead, so it refuses every shared pair and accepts a
changed checkpoint under an old name.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from heliostat.errors import ContractError, HeliostatError

MAX_VALUE = 40
"""Characters of one value in a ticket."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What must be equal for one module to read KV that another wrote.

    `rope` is the canonical JSON of theta, scaling and friends; `tokenizer` a digest of tokenizer.json,
    because a ticket's positions mean token ids.
    """

    architecture: str
    num_layers: int
    num_kv_heads: int
    head_size: int
    rope: str
    vocab_size: int
    tokenizer: str


@dataclass(frozen=True, slots=True)
class Module:
    """One checkpoint: where it is, its contract, a digest of its weights, and how they are quantized."""

    path: Path
    contract: Contract
    weights: str
    quantization: str = ""


def read_module(path: Path) -> Module:
    """The contract and the weight digest of a Hugging Face checkpoint directory.

    Raises HeliostatError with the file that is missing or wrong.
    """
    config = _read_json(path / "config.json")
    heads = _number(config, "num_attention_heads", path)
    head_size = config.get("head_dim") or _number(config, "hidden_size", path) // heads
    rope_keys = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise HeliostatError(f"{path / 'config.json'}: `architectures` is missing")
    return Module(
        path=path,
        contract=Contract(
            architecture=str(architectures[0]),
            num_layers=_number(config, "num_hidden_layers", path),
            num_kv_heads=_number(config, "num_key_value_heads", path, heads),
            head_size=int(str(head_size)),
            rope=json.dumps({key: config[key] for key in rope_keys if key in config}, sort_keys=True),
            vocab_size=_number(config, "vocab_size", path),
            tokenizer=_digest_file(path / "tokenizer.json"),
        ),
        weights=digest_weights(path),
        quantization=_quantization(config),
    )


def _quantization(config: Mapping[str, object]) -> str:
    settings = config.get("quantization_config")
    return str(settings.get("quant_method", "unknown")) if isinstance(settings, dict) else ""


def check_contract(left: str, left_contract: Contract, right: str, right_contract: Contract) -> None:
    """Raise ContractError that names the first field in which the two differ."""
    for field in fields(Contract):
        left_value = getattr(left_contract, field.name)
        right_value = getattr(right_contract, field.name)
        if left_value != right_value:
            raise ContractError(left, right, field.name, str(left_value), str(right_value))


def kv_domain(module: Module, dtype: str) -> str:
    """The identity of the KV that a prefill module writes (rule 3).

    Same domain + same tokens = same KV, from whichever replica. 64 bits of BLAKE2b over the weights,
    the geometry and the dtype.
    """
    contract = json.dumps([str(getattr(module.contract, field.name)) for field in fields(Contract)])
    digest = hashlib.blake2b(f"{module.weights}|{contract}|{dtype}".encode(), digest_size=8)
    return digest.hexdigest()


def engine_contract(module: Module, settings: Mapping[str, str]) -> str:
    """What two replicas must have in common, a line `name=value` each: the module's contract, and settings of
    their engines. It travels with every ticket, so it is one string, and long values are digests."""
    fixed = {field.name: str(getattr(module.contract, field.name)) for field in fields(Contract)}
    return "\n".join(f"{name}={_brief(value)}" for name, value in (fixed | dict(settings)).items())


def contract_difference(left: str, right: str) -> tuple[str, str, str] | None:
    """The first name on which two of these differ, and both values; None: they are equal."""
    if left == right:
        return None
    ours, theirs = (dict(line.split("=", 1) for line in each.splitlines()) for each in (left, right))
    for name in (*ours, *theirs):
        values = ours.get(name, "unknown"), theirs.get(name, "unknown")
        if values[0] != values[1]:
            return name, *values
    return None


def _brief(value: str) -> str:
    if len(value) <= MAX_VALUE:
        return value
    return hashlib.blake2b(value.encode(), digest_size=8).hexdigest()


def digest_weights(path: Path) -> str:
    """One digest over all safetensors files of a checkpoint, by content, whatever their names."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise HeliostatError(f"{path}: no *.safetensors file; Heliostat reads safetensors only")
    digests = sorted(_digest_file(file) for file in files)
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def _digest_file(path: Path) -> str:
    if not path.is_file():
        raise HeliostatError(f"{path}: missing")
    stat = path.stat()
    return _digest_content(os.path.realpath(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_content(path: str, size: int, mtime_ns: int) -> str:
    """Cached by size and modification time, so that replicas of one host hash a checkpoint once each."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        loaded = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise HeliostatError(f"{path}: missing; is this a Hugging Face checkpoint?") from error
    except ValueError as error:
        raise HeliostatError(f"{path}: not JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise HeliostatError(f"{path}: not a JSON object")
    return loaded


def _number(config: Mapping[str, object], key: str, path: Path, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int):
        raise HeliostatError(f"{path / 'config.json'}: `{key}` is {value!r}, not a number")
    return value
