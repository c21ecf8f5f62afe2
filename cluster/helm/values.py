"""The chart's values. `helm/heliostat/values.yaml` has their defaults, and the schema is made from here.

What is Kubernetes' own (tolerations, affinities, volumes) is handed through; the API server checks it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from heliostat.spec import Name, Spec

Object = dict[str, JsonValue]
"""A part of a Kubernetes object."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([KMGTPE]i?|m)?$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Image(_Section):
    """One image for all pods: Ray wants the same versions everywhere."""

    repository: str | None = Field(default=None, min_length=1, description="With registry, without tag.")
    tag: str | None = Field(default=None, description="Empty: the chart's appVersion.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None


class ServiceAccount(_Section):
    """The pods' service account."""

    create: bool | None = None
    name: str | None = Field(default=None, description="Empty: the release's name, or `default`.")
    annotations: dict[str, str] | None = None


class Autoscaler(_Section):
    """Ray's autoscaler: pods come for replicas that find no room, and leave when they are empty."""

    enabled: bool | None = None
    max_pods: int | None = Field(
        default=None, ge=1, description="Of a group at most, or as many as the spec's `max` needs."
    )
    idle_timeout_seconds: int | None = Field(
        default=None, ge=0, description="After which an empty pod leaves."
    )


class Scheduling(_Section):
    """On which nodes a kind of pod runs, and what it may take of them."""

    cpus: float | None = Field(default=None, ge=0, description="CPU cores, beside those of the replicas.")
    memory_gib: float | None = Field(default=None, gt=0, description="Memory, in GiB.")
    node_selector: dict[str, str] | None = None
    tolerations: list[Object] | None = None
    affinity: Object | None = None
    topology_spread_constraints: list[Object] | None = None
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    annotations: dict[str, str] | None = None


class Head(Scheduling):
    """Ray's head: Serve's controller, no replica."""

    gcs_fault_tolerance_options: Object | None = Field(
        default=None, description="KubeRay's `gcsFaultToleranceOptions`: a head that may restart."
    )


class PoolPods(Scheduling):
    """The pods of a pool. `memoryGib` is that of one replica, without its KV."""

    replicas_per_pod: int | None = Field(default=None, ge=1, description="Replicas of the pool in one pod.")
    gpu_resource: str | None = Field(
        default=None, description="What Kubernetes calls a GPU: nvidia.com/gpu, nvidia.com/gpu.shared."
    )
    resources: dict[str, str | int] | None = Field(
        default=None, description="Further resources of a pod, as `rdma/ib: 1`."
    )


class Pods(_Section):
    """The pods of all pools, and of single ones."""

    defaults: PoolPods | None = None
    prefill: dict[Name, PoolPods] | None = Field(default=None, description="By the name of a prefill pool.")
    decode: dict[Name, PoolPods] | None = Field(default=None, description="By the name of a decode pool.")


class Cache(_Section):
    """Where weights from the hub are kept (HF_HOME)."""

    kind: Literal["emptyDir", "hostPath", "claim"] | None = Field(
        default=None, description="`claim` is made by the chart unless `existingClaim` names one."
    )
    size: Quantity | None = None
    host_path: str | None = None
    existing_claim: str | None = None
    storage_class_name: str | None = None
    access_modes: list[str] | None = None


class Weights(_Section):
    """A volume with checkpoints that the spec names by path."""

    mount_path: str | None = Field(default=None, pattern="^/", description="Where the pods see it.")
    existing_claim: str | None = None
    host_path: str | None = None


class Hub(_Section):
    """The token for models that are not public."""

    token: str | None = Field(default=None, description="Makes a Secret; better name an existing one.")
    existing_secret: str | None = None
    key: str | None = Field(default=None, min_length=1, description="The key in the Secret.")


class ApiKeys(_Section):
    """Keys of which each request must carry one."""

    keys: list[str] | None = Field(default=None, description="Makes a Secret; better name an existing one.")
    existing_secret: str | None = None
    key: str | None = Field(default=None, min_length=1, description="The key in the Secret; a line each.")


class Service(_Section):
    """The Service that KubeRay makes, and moves from an old cluster to a new one."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    annotations: dict[str, str] | None = None


class Ingress(_Section):
    """An Ingress in front of the Service."""

    enabled: bool | None = None
    class_name: str | None = None
    annotations: dict[str, str] | None = None
    hosts: list[str] | None = None
    tls: list[Object] | None = None


class HttpRoute(_Section):
    """A route of the Gateway API in front of the Service."""

    enabled: bool | None = None
    annotations: dict[str, str] | None = None
    parent_refs: list[Object] | None = Field(default=None, description="The Gateways.")
    hostnames: list[str] | None = None


class Upgrade(_Section):
    """What KubeRay does when pods must change."""

    type: Literal["NewCluster", "None"] | None = Field(
        default=None, description="`None`: a changed pod changes nothing until the RayService is made anew."
    )


class DisruptionBudget(_Section):
    """How many pods of a group an eviction may take at a time."""

    enabled: bool | None = None
    max_unavailable: int | None = Field(default=None, ge=0)


class NetworkPolicy(_Section):
    """Who may reach the pods."""

    enabled: bool | None = None
    clients: list[Object] | None = Field(default=None, description="Who may send requests; empty: everybody.")
    monitoring: list[Object] | None = Field(default=None, description="Who may read metrics.")
    operator: list[Object] | None = Field(default=None, description="Where KubeRay's operator runs.")
    egress: list[Object] | None = Field(
        default=None, description="Further rules for what the pods may reach."
    )


class Monitoring(_Section):
    """For the Prometheus operator and Grafana's sidecar."""

    pod_monitor: bool | None = None
    interval: str | None = Field(default=None, pattern="^[0-9]+(ms|s|m)$")
    rules: bool | None = Field(default=None, description="A PrometheusRule from `files/rules`.")
    dashboards: bool | None = Field(default=None, description="A ConfigMap from `files/dashboards`.")
    dashboard_labels: dict[str, str] | None = None
    labels: dict[str, str] | None = Field(default=None, description="By which Prometheus finds them.")


class Values(_Section):
    """Everything that the chart takes."""

    spec: Spec = Field(description="The cluster, as `heliostat serve` takes it (docs/spec.md).")
    layout: Literal["podPerReplica", "onePod"] | None = Field(
        default=None, description="Pods of their own for each pool, or one pod for all replicas."
    )
    name_override: str | None = None
    fullname_override: str | None = None
    image: Image | None = None
    image_pull_secrets: list[Object] | None = None
    ray_version: str | None = Field(default=None, description="That of the image.")
    service_account: ServiceAccount | None = None
    pod_labels: dict[str, str] | None = None
    pod_annotations: dict[str, str] | None = None
    pod_security_context: Object | None = None
    security_context: Object | None = None
    extra_env: list[Object] | None = None
    extra_volumes: list[Object] | None = None
    extra_volume_mounts: list[Object] | None = None
    object_store_gib: float | None = Field(default=None, gt=0, description="Ray's object store in a pod.")
    autoscaler: Autoscaler | None = None
    head: Head | None = None
    routers: Scheduling | None = None
    pods: Pods | None = None
    cache: Cache | None = None
    weights: Weights | None = None
    hub: Hub | None = None
    api_keys: ApiKeys | None = None
    service: Service | None = None
    ingress: Ingress | None = None
    http_route: HttpRoute | None = None
    upgrade: Upgrade | None = None
    pod_disruption_budget: DisruptionBudget | None = None
    network_policy: NetworkPolicy | None = None
    monitoring: Monitoring | None = None
    global_: Object | None = Field(default=None, alias="global", description="Helm's own.")
