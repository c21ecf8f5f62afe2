"""What Serve calls our applications, deployments and replicas: made here, and read again here.

heliostat                   the routers' application; its deployment is `router`
heliostat-prefill-math      the application of a pool; its deployment is `prefill-math`
prefill-math#efu3nmul       a replica, as it reports itself
"""

from heliostat.spec import Spec
from heliostat.wire import PoolKey, Role

APP_NAME = "heliostat"
"""The routers' application; those of the pools begin with it."""

ROUTER = "router"


def deployment_name(role: Role, name: str) -> str:
    """A pool's deployment: `prefill-math`, `decode-shared`."""
    return f"{role}-{name}"


def pool_key(deployment: str) -> PoolKey:
    """The pool of a deployment of that name. Raises ValueError for the routers'."""
    role, _, name = deployment.partition("-")
    return Role(role), name


def replica_name(deployment: str, unique_id: str) -> str:
    """Under which a replica reports itself."""
    return f"{deployment}#{unique_id}"


def application_name(role: Role, name: str) -> str:
    """A pool's application: `heliostat-prefill-math`."""
    return f"{APP_NAME}-{deployment_name(role, name)}"


def application_names(spec: Spec) -> dict[str, str]:
    """Every deployment of a spec and the application that it is in; the routers' comes last."""
    pools = {deployment_name(*key): application_name(*key) for key in spec.pools()}
    return {**pools, ROUTER: APP_NAME}


def is_our_application(name: str) -> bool:
    """Whether a Serve application of that name is one of ours, whatever the spec."""
    return name == APP_NAME or name.startswith(tuple(application_name(role, "") for role in Role))


def application_label(name: str) -> str:
    """One of our applications in the spec's words: `prefill.math`, or `routers`. Others keep their names."""
    if name == APP_NAME:
        return f"{ROUTER}s"
    if not is_our_application(name):
        return name
    role, pool = pool_key(name.removeprefix(f"{APP_NAME}-"))
    return f"{role}.{pool}"
