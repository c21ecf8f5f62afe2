"""The arguments of `heliostat serve`, `plan` and `status`."""

import argparse
from pathlib import Path

DEFAULT_PORT = 8000
DEFAULT_HOST = "127.0.0.1"
DEFAULT_URL = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
"""Where a cluster of `heliostat serve` listens."""


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """What to serve, and where to listen."""
    _add_spec(parser)
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port (default: %(default)s)")
    parser.add_argument(
        "--ray",
        default="auto",
        metavar="ADDRESS",
        help="Ray cluster to use; `auto`: the one that runs here, else a local one of our own; `local`: "
        "always one of our own (default: %(default)s)",
    )


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """What to check."""
    _add_spec(parser)
    _add_json(parser)


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to ask."""
    parser.add_argument("--url", default=DEFAULT_URL, help="default: %(default)s")
    _add_json(parser)


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, help="the cluster's spec file (YAML)")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable")
