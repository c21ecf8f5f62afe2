"""LoRA adapters on disk, small as can be."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def lora(tmp_path: Path) -> Callable[..., Path]:
    """`lora(name)` is the folder of an adapter of one number; the same name, the same folder."""

    def made(name: str, targets: tuple[str, ...] = ("q_proj",), value: float = 1.0) -> Path:
        folder = tmp_path / name
        if folder.exists():
            return folder
        folder.mkdir()
        config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": list(targets)}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        content = struct.pack("<Q", len(header)) + header + struct.pack("<f", value)
        (folder / "adapter_model.safetensors").write_bytes(content)
        return folder

    return made
