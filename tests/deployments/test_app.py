"""The composition root builds the application that the spec describes, without starting anything."""

from pathlib import Path

from ray.serve import Application

from deployments.app import BuildArgs, build, deployment_name
from heliostat.wire import Role

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml"


def test_build_takes_the_arguments_of_serve_run() -> None:
    assert isinstance(build(BuildArgs.model_validate({"spec": str(QUICKSTART)})), Application)


def test_deployments_are_named_after_role_and_pool() -> None:
    assert deployment_name(Role.PREFILL, "math") == "prefill-math"
    assert deployment_name(Role.DECODE, "shared") == "decode-shared"
