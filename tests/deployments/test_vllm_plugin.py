"""The plugin is found by vLLM, and what it replaces exists in the pinned release."""

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from deployments.environment import replica_environment
from deployments.vllm_plugin import NAP, register
from heliostat.spec import Pool


def test_vllm_finds_the_plugin() -> None:
    (found,) = entry_points(group="vllm.general_plugins", name="heliostat")
    assert found.load() is register


def test_only_replicas_without_a_gpu_nap() -> None:
    assert replica_environment(Pool(weights="a/b", gpus=0))[NAP] == "1"
    assert NAP not in replica_environment(Pool(weights="a/b", gpus=1))


def test_spinning_readers_call_what_the_plugin_replaces() -> None:
    spec = find_spec("vllm")
    assert spec is not None and spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    source = (package / "distributed" / "device_communicators" / "shm_broadcast.py").read_text()
    waiting = source.split("class SpinCondition")[1].split("def notify")[0]
    assert "sched_yield()" in waiting
