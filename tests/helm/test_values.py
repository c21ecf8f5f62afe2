"""Wrong values are refused with the key that is wrong."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]
Example = Callable[[str], Object]


def refusal(helm: Any, values: Object) -> str:
    """What Helm says, and that nothing was made."""
    with pytest.raises(Exception) as caught:
        helm.install(values)
    assert helm.cluster.created == []
    return str(caught.value)


def changed(values: Object, path: str, value: object) -> Object:
    result = copy.deepcopy(values)
    at = result
    *keys, last = path.split("/")
    for key in keys:
        at = at.setdefault(key, {})
    at[last] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec/decode/base/gpu", 1, "at '/spec/decode/base': additional properties 'gpu' not allowed"),
        ("spec/decode/base/gpus", "two", "at '/spec/decode/base/gpus': got string, want integer"),
        (
            "spec/transfer/transport",
            "shmem",
            "at '/spec/transfer/transport': value must be one of 'shm', 'nixl'",
        ),
        ("spec/decode/base/replicas", 0, "at '/spec/decode/base/replicas': minimum: got 0, want 1"),
        ("spec/decode/base/replicas", {"mim": 1}, "additional properties 'mim' not allowed"),
        ("spec/decode/base/replicas", "1", "at '/spec/decode/base/replicas': got string, want"),
        ("spec/decode/base/tpot_ms", "fast", "at '/spec/decode/base/tpot_ms': got string, want"),
        ("spec/decode/base/lora", {"slot": 1}, "additional properties 'slot' not allowed"),
        ("spec/models/Base", {"prefill": "base", "decode": "base"}, "'Base'"),
        ("spec/models/base", {"prefill": "base"}, "at '/spec/models/base': missing property 'decode'"),
        ("spec/family", {}, "at '/spec/family': missing property 'base'"),
        ("pod", {}, "additional properties 'pod' not allowed"),
        ("ingress/enable", True, "at '/ingress': additional properties 'enable' not allowed"),
        ("layout", "onepod", "at '/layout': value must be one of"),
        ("service/type", "Ingress", "at '/service/type': value must be one of"),
        ("pods/defaults/replicasPerPod", 0, "at '/pods/defaults/replicasPerPod': minimum: got 0, want 1"),
    ],
)
def test_the_schema_names_the_key(helm: Any, example: Example, path: str, value: object, said: str) -> None:
    assert said in refusal(helm, changed(example("cpu-demo"), path, value))


def test_values_without_a_spec_are_refused(helm: Any) -> None:
    assert "at '/spec': missing properties 'family', 'prefill', 'decode', 'models'" in refusal(helm, {})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "spec/models/home/decode",
            "shard",
            'spec.models.home.decode: no decode pool "shard"; decode pools: base, spell',
        ),
        (
            "spec/models/home/prefill_adapter",
            "fine",
            'spec.models.home.prefill_adapter: prefill.home has no adapter "fine"; list it under `adapters`',
        ),
        (
            "spec/decode/base/replicas",
            {"min": 3, "max": 1},
            "spec.decode.base.replicas: min 3 is larger than max 1; raise max or lower min",
        ),
        ("spec/decode/base/replicas", {"min": 3}, "min 3 is larger than max 1"),
        (
            "spec/decode/base/weights",
            "./weights/base",
            'spec.decode.base.weights: "./weights/base" is no path of a pod and no hub name',
        ),
        ("spec/family/base", "weights", 'spec.family.base: "weights" is no path of a pod and no hub name'),
        ("spec/transfer/host", "127.0.0.1", 'spec.transfer.host: "127.0.0.1" is the loopback of one pod'),
        ("spec/decode/base/resources", {"half": 0.5}, "spec.decode.base.resources.half: 0.5 is not a whole"),
        ("layout", "podPerReplica", "spec.transfer.transport: shm reaches one pod; say nixl or nccl, or"),
        ("pods/decode/bose", {}, 'pods.decode.bose: no decode pool "bose"; decode pools: base, spell'),
        ("pods/decode/base", {}, "pods.decode.base: with `layout: onePod` no pool has pods of its own"),
        ("cache/kind", "hostPath", "cache.hostPath: missing; name a directory of the nodes"),
        ("httpRoute/enabled", True, "httpRoute.parentRefs: missing; name a Gateway"),
    ],
)
def test_what_a_schema_cannot_say_is_said_as_the_plan_says_it(
    helm: Any, example: Example, path: str, value: object, said: str
) -> None:
    assert said in refusal(helm, changed(example("cpu-demo"), path, value))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("layout", "onePod", "layout: NixlConnector listens on one port of a pod"),
        ("pods/defaults/replicasPerPod", 2, "pods.defaults.replicasPerPod: NixlConnector listens on one"),
        ("pods/decode/shared", {"replicasPerPod": 2}, "pods.decode.shared.replicasPerPod: NixlConnector"),
    ],
)
def test_replicas_that_would_share_a_port_are_refused(
    helm: Any, example: Example, path: str, value: object, said: str
) -> None:
    assert said in refusal(helm, changed(example("8-gpu-node"), path, value))


def test_all_findings_come_at_once(helm: Any, example: Example) -> None:
    values = changed(example("cpu-demo"), "spec/models/home/decode", "shard")
    said = refusal(helm, changed(values, "spec/models/home/prefill", "hone"))
    assert 'no decode pool "shard"' in said and 'no prefill pool "hone"' in said


def test_the_schemas_words_on_the_page(helm: Any, example: Example, shown: str) -> None:
    values = changed(example("cpu-demo"), "spec/decode/base/gpu", 1)
    said = refusal(helm, changed(values, "spec/decode/base/gpus", "two"))
    assert [line for line in shown.splitlines() if line not in said] == []


def test_the_templates_words_on_the_page(helm: Any, example: Example, shown: str) -> None:
    values = changed(example("cpu-demo"), "spec/models/home/decode", "shard")
    said = refusal(helm, changed(values, "layout", "podPerReplica"))
    assert [line for line in shown.splitlines() if line not in said] == []
