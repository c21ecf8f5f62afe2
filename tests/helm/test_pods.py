"""Which pods a spec gets, what they may take, who reads secrets, and what an upgrade changes."""

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.drain import main as drain
from heliostat.spec import Spec

Object = dict[str, Any]
Example = Callable[[str], Object]


def service(helm: Any) -> Object:
    (found,) = helm.cluster.of_kind("RayService")
    spec: Object = found["spec"]
    return spec


def groups(helm: Any) -> dict[str, Object]:
    return {group["groupName"]: group for group in service(helm)["rayClusterConfig"]["workerGroupSpecs"]}


def container(group: Object) -> Object:
    (found,) = group["template"]["spec"]["containers"]
    return dict(found)


def mounts(group: Object) -> set[str]:
    return {mount["mountPath"] for mount in container(group)["volumeMounts"]}


def resources(group: Object) -> Object:
    """As the shell hands them to `ray start`."""
    text = subprocess.run(
        ["bash", "-c", f"printf %s {group['rayStartParams']['resources']}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: Object = json.loads(text.stdout)
    return found


@pytest.mark.parametrize("name", ["single-gpu", "8-gpu-node", "multi-node"])
def test_each_pool_has_a_group_that_alone_offers_what_its_replicas_ask_for(
    helm: Any, example: Example, name: str
) -> None:
    values = example(name)
    helm.install(values)
    spec = Spec.model_validate(values["spec"])
    *pools, routers = json.loads(service(helm)["serveConfigV2"])["applications"]
    asked = {
        f"{args['role']}-{args['name']}": args["pool"]["resources"] for args in (p["args"] for p in pools)
    }
    made = groups(helm)
    assert set(made) == {"routers", *(f"{role}-{pool}" for role, pool in spec.pools())}
    for (role, pool), settings in spec.pools().items():
        group = made[f"{role}-{pool}"]
        offered = resources(group)
        assert offered == asked[f"{role}-{pool}"]
        others = [resources(other) for name, other in made.items() if name != f"{role}-{pool}"]
        assert not any(offered.keys() & other.keys() for other in others)
        assert int(group["rayStartParams"]["num-gpus"]) == settings.gpus
        assert int(group["rayStartParams"]["num-cpus"]) >= settings.cpus
        assert group["replicas"] == settings.replicas.min
        assert group["maxReplicas"] >= settings.replicas.max
    assert made["routers"]["replicas"] == spec.router.replicas
    assert resources(made["routers"]) == routers["args"]["router"]["resources"]


def test_several_replicas_share_a_pod_where_the_values_say_so(helm: Any, example: Example) -> None:
    values = example("8-gpu-node")
    values["spec"]["transfer"] = {"transport": "nixl"}
    values["pods"]["decode"] = {"shared": {"replicasPerPod": 3}}
    helm.install(values)
    group = groups(helm)["decode-shared"]
    assert group["replicas"] == 2  # of three each, for four replicas
    assert container(group)["resources"]["limits"]["nvidia.com/gpu"] == 3
    assert resources(group) == {"heliostat-decode-shared": 3}


def test_one_pod_has_room_for_all_replicas_and_their_kv(helm: Any, example: Example) -> None:
    values = example("cpu-demo")
    values["spec"]["prefill"]["home"]["replicas"] = {"min": 1, "max": 3}
    values["spec"]["transfer"]["memory_gib"] = 2
    helm.install(values)
    group = groups(helm)["replicas"]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 1)
    assert resources(group) == {"heliostat-replica": 7}
    shm = next(v for v in group["template"]["spec"]["volumes"] if v["name"] == "shm")
    # Five prefill replicas keep 2 GiB each; Ray's objects and half a GiB of slack.
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": f"{(5 * 2 + 1) * 1024}Mi"}
    memory = container(group)["resources"]["limits"]["memory"]
    assert memory == f"{int((7 * (3 + 0.25) + 5 * 2 + 1.5) * 1024)}Mi"


def tokens(helm: Any) -> dict[str, bool]:
    """Which pods may ask Kubernetes' API."""
    cluster = service(helm)["rayClusterConfig"]
    pods = {"head": cluster["headGroupSpec"], **groups(helm)}
    return {name: pod["template"]["spec"]["automountServiceAccountToken"] for name, pod in pods.items()}


def test_pods_follow_the_replicas(helm: Any, example: Example) -> None:
    """KubeRay does not heed changed bounds of a cluster that runs, so they leave room for a changed spec."""
    values = example("8-gpu-node")
    values["spec"]["decode"]["shared"]["replicas"] = {"min": 4, "max": 40}
    helm.install(values)
    assert service(helm)["rayClusterConfig"]["enableInTreeAutoscaling"] is True
    sizes = {n: (g["minReplicas"], g["replicas"], g["maxReplicas"]) for n, g in groups(helm).items()}
    assert sizes["prefill-chat"] == (0, 1, 16)
    assert sizes["decode-shared"] == (0, 4, 40)
    assert sizes["routers"] == (0, 2, 16)
    assert [name for name, may in tokens(helm).items() if may] == ["head"]


def test_without_the_autoscaler_there_are_pods_for_all_replicas(helm: Any, example: Example) -> None:
    values = example("8-gpu-node") | {"autoscaler": {"enabled": False}}
    helm.install(values)
    assert "enableInTreeAutoscaling" not in service(helm)["rayClusterConfig"]
    group = groups(helm)["prefill-chat"]
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (2, 2, 2)
    assert not any(tokens(helm).values())
    before = group["template"]
    values["spec"]["prefill"]["chat"]["replicas"] = 3
    helm.upgrade(values)
    # Another number alone would change nothing in a running cluster; other pods make a new one.
    assert groups(helm)["prefill-chat"]["template"] != before


def test_a_pod_outlasts_the_drain_of_what_runs_in_it(helm: Any, example: Example) -> None:
    values = example("multi-node")
    helm.install(values)
    made = groups(helm)
    longest = values["spec"]["decode"]["shared"]["drain_s"]
    for name, drain_s in (("decode-shared", longest), ("routers", longest), ("prefill-base", 600)):
        stop = container(made[name])["lifecycle"]["preStop"]["exec"]["command"]
        assert stop == ["heliostat-drain", "--within", str(drain_s)]
        assert made[name]["template"]["spec"]["terminationGracePeriodSeconds"] > drain_s
    assert service(helm)["rayClusterDeletionDelaySeconds"] > longest
    env = {entry["name"]: entry.get("value") for entry in container(made["routers"])["env"]}
    assert env["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] == str(longest)
    with pytest.raises(SystemExit) as left:
        drain(["--within", "soon"])  # the command takes what the chart gives it, and nothing else
    assert left.value.code == 2


def test_no_pod_is_root_or_writes_to_its_image(helm: Any, example: Example) -> None:
    helm.install(example("multi-node"))
    helm.test()
    cluster = service(helm)["rayClusterConfig"]
    pods = [pod["template"]["spec"] for pod in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    (test_pod,) = helm.cluster.of_kind("Pod")
    for pod in (*pods, test_pod["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (only,) = pod["containers"]
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert all(
        {"/tmp", "/home/heliostat", "/dev/shm", "/cache"} <= mounts(group) for group in groups(helm).values()
    )


def test_only_routers_and_the_test_read_the_api_keys(helm: Any, example: Example) -> None:
    helm.install(example("multi-node"))
    helm.test()
    readers = [name for name, group in groups(helm).items() if "/etc/heliostat/api-keys" in mounts(group)]
    assert readers == ["routers"]
    (pod,) = helm.cluster.of_kind("Pod")
    (only,) = pod["spec"]["containers"]
    assert [mount["mountPath"] for mount in only["volumeMounts"]] == ["/etc/heliostat/api-keys"]


def test_secrets_stand_in_no_pod_and_in_no_config(helm: Any, example: Example) -> None:
    values = example("cpu-demo") | {"hub": {"token": "hf_secret"}, "apiKeys": {"keys": ["sk-secret"]}}
    helm.install(values)
    holders = [
        t["kind"] for t in helm.cluster.chart_objects() if "secret" in json.dumps(t.get("stringData", {}))
    ]
    assert holders == ["Secret", "Secret"]
    others = [thing for thing in helm.cluster.chart_objects() if thing["kind"] != "Secret"]
    assert "hf_secret" not in json.dumps(others) and "sk-secret" not in json.dumps(others)


def test_a_pool_more_stands_behind_those_that_run(helm: Any, example: Example) -> None:
    """KubeRay adds it to the running cluster then; anywhere else it would make a new one."""
    values = example("8-gpu-node")
    helm.install(values)
    before = list(groups(helm))
    more = copy.deepcopy(values)
    more["spec"]["prefill"]["art"] = {"weights": "acme/qwen3-8b-art-prefill"}
    more["spec"]["models"]["art"] = {"prefill": "art", "decode": "shared"}
    helm.upgrade(more)
    assert list(groups(helm)) == [*before, "prefill-art"]


def test_a_changed_spec_that_needs_no_other_pods_changes_the_serve_config_alone(
    helm: Any, example: Example
) -> None:
    values = example("8-gpu-node")
    helm.install(values)
    before = copy.deepcopy(service(helm))
    values["spec"]["decode"]["shared"]["weights"] = "acme/qwen3-8b-v2"
    values["spec"]["decode"]["shared"]["tpot_ms"] = 20
    values["spec"]["decode"]["shared"]["replicas"] = 6
    values["spec"]["models"]["math"]["limits"] = {"concurrency": 8}
    helm.upgrade(values)
    after = service(helm)
    assert before.pop("serveConfigV2") != after["serveConfigV2"]
    for spec in (before, after):  # numbers of pods, which KubeRay leaves to Ray's autoscaler
        for group in spec["rayClusterConfig"]["workerGroupSpecs"]:
            del group["replicas"], group["maxReplicas"]
    assert before == {key: value for key, value in after.items() if key != "serveConfigV2"}


def test_pools_whose_names_kubernetes_does_not_take_get_names_of_their_own(
    helm: Any, example: Example
) -> None:
    values = example("single-gpu")
    weights = {"weights": "acme/x"}
    values["spec"]["decode"] |= {
        "my_pool": weights,
        "my.pool": weights,
        "my-pool": weights,
        "l" * 63: weights,
    }
    helm.install(values)
    names = [name for name in groups(helm) if name.startswith("decode-")]
    assert len(names) == 5
    assert all(len(name) <= 40 and name.replace("-", "").isalnum() for name in names)


def test_the_image_has_what_the_pods_start(helm: Any, example: Example) -> None:
    helm.install(example("cpu-demo"))
    env = {entry["name"]: entry.get("value") for entry in container(groups(helm)["routers"])["env"]}
    haproxy = Path(env["RAY_SERVE_HAPROXY_BINARY_PATH"])
    for file in ("Dockerfile.cpu", "Dockerfile.gpu"):
        text = (Path(__file__).parents[2] / "docker" / file).read_text()
        assert f"COPY --from=build {haproxy.parents[1]} {haproxy.parents[1]}" in text
        assert "USER 1000:1000" in text and " wget" in text
