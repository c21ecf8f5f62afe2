"""What `heliostat dashboards` may be told. Imports nothing heavy, so that other commands stay light."""

import argparse
from pathlib import Path

from cluster.serve_args import DEFAULT_URL

TOKEN_VARIABLE = "GRAFANA_TOKEN"
DEFAULT_FOLDER = "Heliostat"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`write` and `push`."""
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    write = what.add_parser(
        "write",
        help="the dashboard, the rules and a Prometheus configuration as files",
        description="Write heliostat-dashboard.json (for Grafana), heliostat-rules.yml (for Prometheus: "
        "recording rules and alerts) and prometheus.yml (a configuration that scrapes the cluster).",
    )
    write.add_argument("folder", type=Path, metavar="DIR", help="made when it is not there")
    write.add_argument("--url", default=DEFAULT_URL, help="the cluster to scrape (default: %(default)s)")
    push = what.add_parser(
        "push",
        help="put the dashboard into a Grafana",
        description="Put the dashboard into a Grafana, or replace an older one; again changes nothing.",
    )
    push.add_argument(
        "--grafana", required=True, metavar="URL", help="Grafana's address, with its path if any"
    )
    push.add_argument(
        "--token", help=f"of a service account that may edit (default: the variable {TOKEN_VARIABLE})"
    )
    push.add_argument(
        "--folder", default=DEFAULT_FOLDER, help="made when it is not there (default: %(default)s)"
    )
    push.add_argument(
        "--datasource",
        metavar="NAME",
        help="a Prometheus data source (default: Grafana's default, or its only one)",
    )
