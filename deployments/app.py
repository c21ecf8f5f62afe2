"""The composition root: a spec becomes a Ray Serve application.

serve run deployments.app:build spec=cluster.yaml
heliostat serve cluster.yaml
"""

from pathlib import Path

from pydantic import BaseModel
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from deployments.environment import replica_environment, router_environment
from deployments.ingress import Router
from deployments.replica import DecodeReplica, PrefillReplica
from deployments.request_router import PolicyRequestRouter
from heliostat.spec import Pool, Spec
from heliostat.specfile import load_spec
from heliostat.wire import Role
from router.policy import DEFAULTS

APP_NAME = "heliostat"
ROUTER = "router"
ROUTER_CPUS = 0.25
UNBOUNDED = 1_000_000
"""Serve's own queue limit: engines queue by themselves, and admission is the router's."""


class BuildArgs(BaseModel):
    """Arguments of `build` in `serve run` and in Serve config files."""

    spec: Path


def build(args: BuildArgs) -> Application:
    """The application of a spec file. Raises SpecError."""
    return build_application(load_spec(args.spec))


def deployment_name(role: Role, name: str) -> str:
    """A pool's deployment: `prefill-math`, `decode-shared`."""
    return f"{role}-{name}"


def build_application(spec: Spec) -> Application:
    """One deployment per pool, and the router in front of them."""
    prefill = {name: _pool(spec, Role.PREFILL, name, pool) for name, pool in spec.prefill.items()}
    decode = {name: _pool(spec, Role.DECODE, name, pool) for name, pool in spec.decode.items()}
    router = serve.deployment(
        Router,
        name=ROUTER,
        num_replicas=spec.router.replicas,
        max_ongoing_requests=UNBOUNDED,
        ray_actor_options={
            "num_cpus": ROUTER_CPUS,
            "runtime_env": {"env_vars": router_environment()},
        },
    )
    return router.bind(spec, prefill, decode)


def _pool(spec: Spec, role: Role, name: str, pool: Pool) -> Application:
    replica = PrefillReplica if role is Role.PREFILL else DecodeReplica
    deployment = serve.deployment(
        replica,
        name=deployment_name(role, name),
        num_replicas=pool.replicas.min,
        max_ongoing_requests=UNBOUNDED,
        # A checkpoint that does not load will not load the next time either.
        max_constructor_retry_count=1,
        ray_actor_options={
            "num_cpus": pool.cpus,
            "num_gpus": pool.gpus,
            "runtime_env": {"env_vars": replica_environment(pool)},
        },
        request_router_config=RequestRouterConfig(
            request_router_class=PolicyRequestRouter,
            request_router_kwargs={
                "policy": pool.policy or DEFAULTS[role],
                "tpot_ms": pool.tpot_ms,
                "routers": spec.router.replicas,
            },
        ),
        # A replica that leaves finishes what it has; Serve waits no longer than that takes.
        graceful_shutdown_timeout_s=pool.drain_s,
        health_check_period_s=5,
    )
    return deployment.bind(spec, name)
