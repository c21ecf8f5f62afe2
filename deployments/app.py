"""The composition root: a spec becomes Ray Serve applications, one for each pool and one for the routers.

Serve starts all replicas of an application anew when what it is built from changes, and it can tell only for
a whole application. So every pool is one: a changed spec leaves the pools alone whose part is the same.
"""

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from deployments.environment import replica_environment, router_environment
from deployments.ingress import Router
from deployments.logs import logging_config
from deployments.names import APP_NAME, ROUTER, application_name, deployment_name
from deployments.replica import DecodeReplica, PrefillReplica
from deployments.request_router import PolicyRequestRouter
from deployments.scaling import autoscaling_config
from heliostat.spec import PoolSpec, Spec
from heliostat.wire import Role

ROUTER_CPUS = 0.25
UNBOUNDED = 1_000_000
"""Serve's own queue limit: engines queue by themselves, and admission is the router's."""

ROUTE_PREFIX = "/"

NO_INGRESS = "none"
NEVER = AutoscalingConfig(min_replicas=0, initial_replicas=0, max_replicas=1)


class NoIngress:
    """The ingress that Serve wants of every application. A pool's is called by nobody and has no replica."""

    def __init__(self, pool: DeploymentHandle) -> None:
        self.pool = pool


SOON_S = 20.0
"""How long open streams hold up Ctrl-C."""


class Scale(BaseModel):
    """What Serve may change of a deployment without a new replica; names and meaning are Serve's. It takes
    either a number or a config."""

    model_config = ConfigDict(frozen=True)

    num_replicas: int | None = None
    autoscaling_config: AutoscalingConfig | None = None
    graceful_shutdown_timeout_s: float
    max_surge_percent: int

    def given(self) -> dict[str, object]:
        """What is set, as `Deployment.options` takes it."""
        return {key: value for key, value in self if value is not None}


def pool_scale(spec: Spec, role: Role, name: str) -> Scale:
    """How many replicas a pool has, or what decides it, and how long one that leaves may go on."""
    pool = spec.pools()[role, name]
    autoscaling = autoscaling_config(spec, role, name)
    return Scale(
        num_replicas=None if autoscaling else pool.replicas.min,
        autoscaling_config=autoscaling,
        graceful_shutdown_timeout_s=pool.drain_s,
        max_surge_percent=pool.surge_percent,
    )


def router_scale(spec: Spec) -> Scale:
    """The same of the routers, with the streams of all pools. A new one comes before one leaves."""
    longest_s = max(pool.drain_s for pool in spec.pools().values())
    replicas = spec.router.replicas
    return Scale(
        num_replicas=replicas,
        graceful_shutdown_timeout_s=longest_s,
        max_surge_percent=math.ceil(100 / replicas),
    )


def build_applications(spec: Spec) -> dict[str, Application]:
    """All applications of a spec by name, for `heliostat serve`; the routers' comes last."""
    scale = router_scale(spec).model_copy(update={"graceful_shutdown_timeout_s": SOON_S})
    pools = {
        application_name(*key): _pool(spec.pool_spec(*key), pool_scale(spec, *key)) for key in spec.pools()
    }
    return {**pools, APP_NAME: _routers(spec.router_spec(), scale)}


def build_pool(args: PoolSpec) -> Application:
    """One pool, in a Serve config file; `deployments.serve_config` writes its scale there."""
    return _pool(args)


def build_router(args: Spec) -> Application:
    """The routers, in a Serve config file, from `Spec.router_spec`."""
    return _routers(args)


def _pool(spec: PoolSpec, scale: Scale | None = None) -> Application:
    pool = spec.pool
    deployment = serve.deployment(
        PrefillReplica if spec.role is Role.PREFILL else DecodeReplica,
        name=deployment_name(spec.role, spec.name),
        max_ongoing_requests=UNBOUNDED,
        logging_config=logging_config(spec.observability.logs),
        # A checkpoint that does not load will not load the next time either.
        max_constructor_retry_count=1,
        ray_actor_options={
            "num_cpus": pool.cpus,
            "num_gpus": pool.gpus,
            "resources": pool.resources,
            "runtime_env": {"env_vars": replica_environment(pool, application_name(spec.role, spec.name))},
        },
        request_router_config=RequestRouterConfig(request_router_class=PolicyRequestRouter),
        health_check_period_s=5,
    )
    # With HAProxy in front, Serve refuses a request router of ours on an application's ingress.
    return serve.deployment(NoIngress, name=NO_INGRESS, autoscaling_config=NEVER).bind(
        _scaled(deployment, scale).bind(spec)
    )


def _routers(spec: Spec, scale: Scale | None = None) -> Application:
    deployment = serve.deployment(
        Router,
        name=ROUTER,
        max_ongoing_requests=UNBOUNDED,
        logging_config=logging_config(spec.observability.logs),
        ray_actor_options={
            "num_cpus": ROUTER_CPUS,
            "resources": spec.router.resources,
            "runtime_env": {"env_vars": router_environment()},
        },
    )
    return _scaled(deployment, scale).bind(spec, pool_handles(spec))


def _scaled(deployment: serve.Deployment, scale: Scale | None) -> serve.Deployment:
    return deployment.options(**dict(scale.given())) if scale else deployment


def pool_handles(spec: Spec) -> Mapping[tuple[Role, str], DeploymentHandle]:
    """Handles of pools that need not be there yet: calls wait for a first replica, or find none."""
    return {
        (role, name): DeploymentHandle(deployment_name(role, name), application_name(role, name))
        for role, name in spec.pools()
    }
