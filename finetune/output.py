"""Where a run keeps its checkpoints, and how its module gets to its place: whole, or not at all."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import JsonValue
from transformers import PreTrainedModel
from transformers.trainer_utils import get_last_checkpoint

from heliostat.errors import HeliostatError
from kvtransfer.card import CARD_FILE, ModuleCard, write_card

SETTINGS_FILE = "settings.json"
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf")


def open_partial(out: Path, facts: Mapping[str, JsonValue], resume: bool) -> tuple[Path, Path | None]:
    """The folder `OUT.partial` for checkpoints, and the newest one in it if the run continues.

    Raises HeliostatError if `out` is taken, if there is an unfinished run that nobody asked to continue, and
    if the one to continue had other settings.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HeliostatError(f"{out}: exists and is not empty; choose another --out, or remove it")
    partial = out.with_name(f"{out.name}.partial")
    found = get_last_checkpoint(str(partial)) if partial.is_dir() else None
    if found and not resume:
        raise HeliostatError(f"{partial}: an unfinished run; continue it with --resume, or remove the folder")
    if resume and not found:
        raise HeliostatError(f"{partial}: no checkpoint to resume from; leave out --resume to start anew")
    if found:
        _check_same(partial / SETTINGS_FILE, facts)
    partial.mkdir(parents=True, exist_ok=True)
    (partial / SETTINGS_FILE).write_text(json.dumps(facts, indent=2) + "\n")
    return partial, Path(found) if found else None


def close_partial(partial: Path) -> None:
    """After a failure: keep the folder if there are checkpoints to resume from."""
    if partial.is_dir() and get_last_checkpoint(str(partial)) is None:
        shutil.rmtree(partial)


def write_module(
    model: PreTrainedModel | PeftModel, base: Path, partial: Path, out: Path, card: ModuleCard
) -> None:
    """Write the module inside `partial`, then rename it to `out` and drop the checkpoints."""
    folder = partial / "module"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if isinstance(model, PeftModel):
        # No look at the hub for whether the base's embeddings were resized: they never are.
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
    else:
        _write_checkpoint(model, base, folder)
    write_card(folder, card)
    if out.exists():
        out.rmdir()
    folder.replace(out)
    shutil.rmtree(partial)


def _write_checkpoint(model: PreTrainedModel, base: Path, folder: Path) -> None:
    """Weights in the base's type; every other file byte for byte: contracts compare config and tokenizer."""
    for file in base.iterdir():
        if file.is_file() and file.name != CARD_FILE and not file.name.endswith(_WEIGHTS):
            shutil.copyfile(file, folder / file.name)
    config = json.loads((base / "config.json").read_text())
    dtype = getattr(torch, config.get("dtype") or config.get("torch_dtype") or "float32")
    weights = folder / "weights"
    model.to(dtype=dtype).save_pretrained(weights)
    for file in weights.glob("*.safetensors*"):
        file.replace(folder / file.name)
    shutil.rmtree(weights)


def _check_same(file: Path, facts: Mapping[str, JsonValue]) -> None:
    try:
        earlier = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise HeliostatError(f"{file}: cannot be read: {error}; remove the folder to start anew") from error
    for name in sorted(facts.keys() | earlier.keys()):
        if facts.get(name) != earlier.get(name):
            raise HeliostatError(
                f"--resume: {name} is {facts.get(name)!r}, but {file.parent} was begun with "
                f"{earlier.get(name)!r}; give the same settings, or remove the folder"
            )
