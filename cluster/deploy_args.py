"""What `heliostat deploy`, `diff` and `down` may be told. Imports nothing heavy."""

import argparse
import os
from math import inf
from pathlib import Path

from cluster.flag_types import positive

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLE = "RAY_DASHBOARD_ADDRESS"
"""Where Ray's own tools look for a dashboard, too."""


def add_deploy_arguments(parser: argparse.ArgumentParser) -> None:
    """`heliostat deploy`."""
    _add_spec(parser)
    _add_address(parser)
    _add_wait(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="where the nodes listen for clients if this starts Serve; 0.0.0.0: everywhere "
        "(default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=8000, help="the same for the port (default: %(default)s)")
    parser.add_argument("--url", help="where the routers are reached from here, if not there")


def add_diff_arguments(parser: argparse.ArgumentParser) -> None:
    """`heliostat diff`."""
    _add_spec(parser)
    _add_address(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")


def add_down_arguments(parser: argparse.ArgumentParser) -> None:
    """`heliostat down`."""
    _add_address(parser)
    _add_wait(parser)


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, help="the cluster's spec file (YAML)")


def _add_address(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS)
    parser.add_argument(
        "--address",
        default=default,
        metavar="URL",
        help=f"the Ray cluster's dashboard (default: {ADDRESS_VARIABLE}, else {DEFAULT_ADDRESS})",
    )


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-wait", dest="wait", action="store_false", help="begin, and do not wait for the end"
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=inf,
        metavar="SECONDS",
        help="how long to wait for each step; what was begun goes on (default: as long as it takes)",
    )
