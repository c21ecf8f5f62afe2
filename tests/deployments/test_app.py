"""The composition root builds the application that the spec describes, without starting anything."""

import subprocess
import sys
from pathlib import Path

from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from deployments.app import build_applications
from deployments.names import APP_NAME, application_names, deployment_name
from deployments.request_router import PolicyRequestRouter
from heliostat.specfile import load_spec
from heliostat.wire import Role

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml"


def test_every_pool_is_an_application_and_so_are_the_routers() -> None:
    spec = load_spec(QUICKSTART)
    applications = build_applications(spec)
    assert list(applications) == list(application_names(spec).values())
    assert len(applications) == len(spec.pools()) + 1
    assert list(applications)[-1] == APP_NAME
    assert all(isinstance(application, Application) for application in applications.values())


def test_deployments_are_named_after_role_and_pool() -> None:
    assert deployment_name(Role.PREFILL, "math") == "prefill-math"
    assert deployment_name(Role.DECODE, "shared") == "decode-shared"


def test_request_routers_read_the_board_of_their_process(tmp_path: Path) -> None:
    """Serve pickles their module by value; a board among its globals would be a copy that nobody fills."""
    pickled = tmp_path / "class"
    config = RequestRouterConfig(request_router_class=PolicyRequestRouter)
    pickled.write_bytes(config.get_serialized_request_router_cls())
    script = (
        "import sys, ray.cloudpickle, deployments.board as board\n"
        "router = ray.cloudpickle.loads(open(sys.argv[1], 'rb').read())\n"
        "names = router.choose_replicas.__globals__\n"
        "assert names['board'] is board, names['board']\n"
        "assert not any(isinstance(value, type(board.BOARD)) for value in names.values())\n"
    )
    subprocess.run([sys.executable, "-c", script, str(pickled)], check=True)
