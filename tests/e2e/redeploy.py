"""Serve a spec anew on a running cluster: `python redeploy.py GCS_ADDRESS SPEC [APPLICATION …]`.

What is deployed in this way is made anew, whether it has changed or not; without names that is everything.
"""

import sys
from pathlib import Path

from cluster.serve_environment import set_serve_environment

set_serve_environment()  # before Ray Serve is imported

import ray  # noqa: E402
from ray import serve  # noqa: E402

from deployments.app import ROUTE_PREFIX, build_applications  # noqa: E402
from deployments.names import APP_NAME  # noqa: E402
from heliostat.specfile import load_spec  # noqa: E402

ray.init(address=sys.argv[1], namespace="serve", logging_level="ERROR", log_to_driver=False)
serve.run_many(
    [
        serve.RunTarget(application, name=name, route_prefix=ROUTE_PREFIX if name == APP_NAME else None)
        for name, application in build_applications(load_spec(Path(sys.argv[2]))).items()
        if name in sys.argv[3:] or not sys.argv[3:]
    ],
    wait_for_ingress_deployment_creation=False,
    wait_for_applications_running=False,
)
ray.shutdown()
