"""A spec as a Serve config file: what `serve deploy`, Serve's REST API and KubeRay take.

Each pool is an application whose `args` are what its replicas are made from. What may change without a new
replica stands under `deployments`, where Serve applies it to the replicas that run.
"""

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from deployments.app import ROUTE_PREFIX, Scale, pool_scale, router_scale
from deployments.names import APP_NAME, ROUTER, application_name, deployment_name
from heliostat.spec import Spec

BUILD_POOL = "deployments.app:build_pool"
BUILD_ROUTER = "deployments.app:build_router"


def _is_none(value: object) -> bool:
    return value is None


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True)


class DeploymentSection(_Section):
    """Overrides of one deployment."""

    name: str
    num_replicas: int | None = Field(default=None, exclude_if=_is_none)
    autoscaling_config: dict[str, JsonValue] | None = Field(default=None, exclude_if=_is_none)
    graceful_shutdown_timeout_s: float
    max_surge_percent: int


class ApplicationSection(_Section):
    """One application; `route_prefix` is null where no HTTP goes."""

    name: str
    route_prefix: str | None
    import_path: str
    args: dict[str, JsonValue]
    deployments: tuple[DeploymentSection, ...]


class ServeConfig(_Section):
    """The part of Serve's config file that follows from a spec; the routers' application comes last."""

    applications: tuple[ApplicationSection, ...]


def serve_config(spec: Spec) -> ServeConfig:
    """The applications of a spec whose weights are hub names or directories that every node has."""
    pools = [
        ApplicationSection(
            name=application_name(role, name),
            route_prefix=None,
            import_path=BUILD_POOL,
            args=spec.pool_spec(role, name).model_dump(mode="json", exclude_defaults=True),
            deployments=(
                DeploymentSection(name=deployment_name(role, name), **_section(pool_scale(spec, role, name))),
            ),
        )
        for role, name in spec.pools()
    ]
    routers = ApplicationSection(
        name=APP_NAME,
        route_prefix=ROUTE_PREFIX,
        import_path=BUILD_ROUTER,
        args=spec.router_spec().model_dump(mode="json", exclude_defaults=True),
        deployments=(DeploymentSection(name=ROUTER, **_section(router_scale(spec))),),
    )
    return ServeConfig(applications=(*pools, routers))


def _section(scale: Scale) -> dict[str, JsonValue]:
    """As JSON, without what is not set: Serve takes either a number of replicas or an autoscaling config."""
    section: dict[str, JsonValue] = scale.model_dump(
        mode="json", exclude_none=True, exclude={"autoscaling_config"}
    )
    if scale.autoscaling_config is not None:
        section["autoscaling_config"] = scale.autoscaling_config.model_dump(
            mode="json", exclude_unset=True, include={*scale.autoscaling_config.model_fields_set}
        )
    return section
