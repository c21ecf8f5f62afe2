"""What is put on Serve: our applications beside those of others, in an order in which no request fails.

    pools that are new or changed ──> routers that know them ──> pools that nobody knows any more leave

So a router never names a pool that has no replica yet, and none loses a pool that it still calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from cluster.deploy_diff import Config
from cluster.serve_api import Application, ServeDetails
from deployments.app import ROUTE_PREFIX
from deployments.names import APP_NAME, is_our_application
from deployments.serve_config import BUILD_POOL, BUILD_ROUTER, serve_config
from heliostat.errors import HeliostatError
from heliostat.spec import Spec

FAILED, LEAVING = "DEPLOY_FAILED", "DELETING"
ATTEMPT = "HELIOSTAT_ATTEMPT"
"""Serve builds nothing twice from the same config; one more attempt must differ in something."""


@dataclass(frozen=True, slots=True)
class Ours:
    """Our applications on a Serve, and the others that a `PUT` must repeat, lest Serve delete them."""

    before: Mapping[str, Config]
    failed: frozenset[str]
    others: tuple[Config, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One `PUT`: all applications that run after it, and which of ours it removes."""

    applications: Mapping[str, Config]
    removed: frozenset[str]


def find_ours(details: ServeDetails) -> Ours:
    """Raises HeliostatError when a program serves ours in its foreground, or others have our names."""
    before, others = {}, []
    for name, application in details.applications.items():
        config = application.config
        if application.status == LEAVING:
            continue
        if config is not None and config.get("import_path") in (BUILD_POOL, BUILD_ROUTER):
            before[name] = config
        elif is_our_application(name):
            _refuse(name, application)
        elif config is not None:
            others.append(config)
    failed = frozenset(name for name in before if details.applications[name].status == FAILED)
    return Ours(before, failed, tuple(others))


def wanted(spec: Spec, ours: Ours, details: ServeDetails) -> dict[str, Config]:
    """Our applications as the spec wants them. Raises HeliostatError when another one has our route."""
    for name, application in details.applications.items():
        if application.route_prefix == ROUTE_PREFIX and not is_our_application(name):
            raise HeliostatError(
                f"the application {name} on this Serve has the route {ROUTE_PREFIX} already, which is the "
                "routers'; give that one another route, or take another Ray cluster"
            )
    sections: list[dict[str, JsonValue]] = serve_config(spec).model_dump(mode="json")["applications"]
    return {str(section["name"]): _attempted(section, ours) for section in sections}


def steps(before: Mapping[str, Config], after: Mapping[str, Config]) -> tuple[Step, ...]:
    """From the one to the other; none when they are the same."""
    leaving = {name: config for name, config in before.items() if name not in after}
    stages: list[Mapping[str, Config]] = []
    if APP_NAME in before:
        pools = {name: config for name, config in after.items() if name != APP_NAME}
        stages.append({**pools, **leaving, APP_NAME: before[APP_NAME]})
        stages.append({**after, **leaving})
    stages.append(after)
    result: list[Step] = []
    now: Mapping[str, Config] = before
    for stage in stages:
        if stage != now:
            result.append(Step(stage, frozenset(now.keys() - stage.keys())))
        now = stage
    return tuple(result)


def body(
    step: Step | None, ours: Ours, details: ServeDetails, host: str = "", port: int = 0
) -> dict[str, JsonValue]:
    """The whole config of a `PUT`. Where Serve runs already, it listens where it does."""
    http = details.http_options if details.runs else None
    mine = [dict(config) for config in step.applications.values()] if step else []
    result: dict[str, JsonValue] = {
        "http_options": {"host": http.host if http else host, "port": http.port if http else port},
        "applications": [*(dict(config) for config in ours.others), *mine],
    }
    if details.target_capacity is not None:
        result["target_capacity"] = details.target_capacity
    return result


def _attempted(section: dict[str, JsonValue], ours: Ours) -> Config:
    """The section; what was tried again keeps the number of its attempt, lest it be made anew for that."""
    name = str(section["name"])
    before = ours.before.get(name)
    if before is None or before.get("args", {}) != section["args"]:
        return section
    number = _attempt(before) + (name in ours.failed)
    return {**section, "runtime_env": {"env_vars": {ATTEMPT: str(number)}}} if number else section


def _attempt(config: Config) -> int:
    environment = config.get("runtime_env")
    variables = environment.get("env_vars") if isinstance(environment, dict) else None
    number = variables.get(ATTEMPT) if isinstance(variables, dict) else None
    return int(number) if isinstance(number, str) and number.isdecimal() else 0


def _refuse(name: str, application: Application) -> None:
    if application.source == "imperative":
        raise HeliostatError(
            f"{name} was put on this Ray cluster by a program, such as `heliostat serve` in somebody's "
            "foreground; stop that first"
        )
    raise HeliostatError(f"an application that is not ours has the name {name}; rename or remove it first")
