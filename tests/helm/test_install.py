"""Helm installs the chart for every example: what it would create is what Kubernetes and KubeRay take."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

Object = dict[str, Any]

KUBERNETES = "1.33"
INFO = 1
"""The severity of a hint in Helm's lint: here, that the chart has no icon."""

EXAMPLES = sorted(path.stem for path in (Path(__file__).parents[2] / "helm" / "examples").glob("*.yaml"))
CRD = json.loads((Path(__file__).parent / "crds" / "rayservice.json").read_text())
WITHOUT_SCHEMA = {"PodMonitor", "PrometheusRule", "HTTPRoute"}
"""Kinds whose schemas are in no package; tests look at what they hold."""

EVERYTHING: Object = {
    "hub": {"token": "hf_x"},
    "apiKeys": {"keys": ["sk-1", "sk-2"]},
    "cache": {"kind": "claim"},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "ingress": {"enabled": True, "hosts": ["a.example.com"], "tls": [{"hosts": ["a.example.com"]}]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["a.example.com"]},
    "monitoring": {"podMonitor": True},
    "imagePullSecrets": [{"name": "registry"}],
    "extraEnv": [{"name": "A", "value": "b"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "weights": {"hostPath": "/srv/weights"},
    "podAnnotations": {"team": "llm"},
    "podLabels": {"team": "llm"},
    "head": {"gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}, "priorityClassName": "high"},
}


def strict(schema: Any) -> Any:
    """Kubernetes drops keys that it does not know; here they are errors."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


RAY_SERVICE = Draft202012Validator(strict(CRD))


def templates(service: Object) -> dict[str, Object]:
    """The pod templates of a RayService by group."""
    cluster = service["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **groups}


def check(thing: Object) -> None:
    """One object against the schema of its kind."""
    if thing["kind"] == "RayService":
        assert not [f"{error.json_path}: {error.message}" for error in RAY_SERVICE.iter_errors(thing)]
        for name, template in templates(thing).items():
            pod = {"apiVersion": "v1", "kind": "Pod", **template}
            pod["metadata"] = {**pod["metadata"], "name": name}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    elif thing["kind"] not in WITHOUT_SCHEMA:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)


def find(helm: Any, kind: str) -> Object:
    (thing,) = helm.cluster.of_kind(kind)
    return thing


def test_the_schemas_refuse_what_is_wrong() -> None:
    """Else the tests below show nothing."""
    service = {"spec": {"serveConfigV2": "", "rayClusterConfig": {"headGroupSpec": {"template": {}}}}}
    assert not list(RAY_SERVICE.iter_errors(service))
    service["spec"]["rayClusterConfig"]["headGroupSpecs"] = {}  # type: ignore[index]
    assert [error.message for error in RAY_SERVICE.iter_errors(service)]
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(budget, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_installs_every_example_and_kubernetes_takes_it(
    helm: Any, example: Callable[[str], Object], name: str
) -> None:
    result = helm.install(example(name))
    assert result["info"]["status"] == "deployed"
    made = helm.cluster.chart_objects()
    assert {"RayService", "ConfigMap", "ServiceAccount", "NetworkPolicy"} <= {thing["kind"] for thing in made}
    for thing in made:
        check(thing)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_option_at_once_is_what_kubernetes_takes(
    helm: Any, example: Callable[[str], Object], name: str
) -> None:
    helm.install(example(name) | EVERYTHING)
    made = helm.cluster.chart_objects()
    for thing in made:
        check(thing)
    kinds = [thing["kind"] for thing in made]
    assert kinds.count("Secret") == 2
    assert {"Ingress", "HTTPRoute", "PersistentVolumeClaim", "PodMonitor"} <= set(kinds)


def merged(defaults: Object, values: Object) -> Object:
    """As Helm merges values."""
    both = {
        key: merged(defaults[key], values[key])
        for key in defaults.keys() & values.keys()
        if type(values[key]) is dict
    }
    return {**defaults, **values, **both}


@pytest.mark.parametrize("name", EXAMPLES)
def test_lint_finds_nothing(
    helm: Any, example: Callable[[str], Object], chart: Path, tmp_path: Path, name: str
) -> None:
    """The binding lints a chart with its own values, so it gets one whose values are the example's."""
    copy = tmp_path / "heliostat"
    shutil.copytree(chart, copy)
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    (copy / "values.yaml").write_text(yaml.safe_dump(merged(defaults, example(name))))
    assert [message for message in helm.lint(copy)["Messages"] if message["Severity"] > INFO] == []
    assert [message["Path"] for message in helm.lint(chart)["Messages"] if message["Severity"] > INFO] == [
        "values.yaml",  # a chart without values has no spec, and says so
        "templates/",
    ]


def test_helm_tests_upgrades_and_uninstalls(helm: Any, example: Callable[[str], Object]) -> None:
    values = example("cpu-demo")
    helm.install(values)
    helm.test()
    (pod,) = [thing for thing in helm.cluster.chart_objects() if thing["kind"] == "Pod"]
    check(pod)
    values["spec"]["decode"]["base"]["replicas"] = 2
    helm.upgrade(values)
    assert find(helm, "RayService")["spec"]["serveConfigV2"].count('"num_replicas": 2') == 1
    helm.uninstall()
    assert [kind for kind, _ in helm.cluster.objects] == ["Pod"]  # the test's, whose log one may want


def test_an_uninstall_keeps_the_downloads(helm: Any, example: Callable[[str], Object]) -> None:
    helm.install(example("multi-node"))
    helm.uninstall()
    assert [kind for kind, _ in helm.cluster.objects] == ["PersistentVolumeClaim"]


def test_the_notes_say_how_to_reach_it(helm: Any, example: Callable[[str], Object]) -> None:
    notes = helm.install(example("cpu-demo"))["info"]["notes"]
    assert "port-forward service/prod-heliostat-serve 8000" in notes
    assert "There are no API keys" in notes
    notes = helm.install(example("multi-node"), release="other")["info"]["notes"]
    assert "https://llm.example.com/v1" in notes
    assert "$KEY" in notes and "There are no API keys" not in notes
