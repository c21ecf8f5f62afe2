"""LoRA adapters on disk, small as can be; and metrics that only remember."""

import json
import struct
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployments.metric_kinds import Tags

TAGS = {"model", "pool", "role", "outcome", "stage", "transport", "domain", "kind"}
"""Their values come from the operator and from enums, so that traffic adds no series."""


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


class FakeMetric:
    """A metric of any kind: all values that it got, by its tags."""

    def __init__(self, tag_keys: tuple[str, ...]) -> None:
        self.tag_keys = tag_keys
        self.values: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)

    def inc(self, value: float, tags: Tags) -> None:
        assert value > 0  # as Ray has it
        self.set(value, tags)

    def observe(self, value: float, tags: Tags) -> None:
        self.set(value, tags)

    def set(self, value: float, tags: Tags) -> None:
        assert set(tags) == set(self.tag_keys)
        self.values[tuple(tags[key] for key in self.tag_keys)].append(value)


@dataclass
class FakeMetrics:
    made: dict[str, FakeMetric] = field(default_factory=dict)

    def counter(self, name: str, description: str, tag_keys: tuple[str, ...]) -> FakeMetric:
        assert name.endswith("_total")
        return self.gauge(name, description, tag_keys)

    def gauge(self, name: str, description: str, tag_keys: tuple[str, ...]) -> FakeMetric:
        assert name not in self.made
        assert name.startswith("heliostat_")
        assert set(tag_keys) <= TAGS
        self.made[name] = FakeMetric(tag_keys)
        return self.made[name]

    def histogram(
        self, name: str, description: str, boundaries: list[float], tag_keys: tuple[str, ...]
    ) -> FakeMetric:
        assert boundaries == sorted(set(boundaries))
        assert boundaries[0] > 0
        return self.gauge(name, description, tag_keys)

    def values(self, name: str, *tags: str) -> list[float]:
        return self.made[f"heliostat_{name}"].values[tags]


@pytest.fixture
def fake_kinds() -> FakeMetrics:
    """`deployments.metric_kinds.MetricKinds` that only remembers."""
    return FakeMetrics()
