"""`heliostat dashboards`: what an operator sees, into files or into a Grafana."""

import argparse
import os

from cluster.dashboards.files import write_files
from cluster.dashboards_args import TOKEN_VARIABLE
from heliostat.errors import HeliostatError


def dashboards_command(args: argparse.Namespace) -> int:
    """`write` or `push`; exit status 0. Raises HeliostatError."""
    return {"write": _write, "push": _push}[args.what](args)


def _write(args: argparse.Namespace) -> int:
    for path in write_files(args.folder, args.url):
        print(path)
    return 0


def _push(args: argparse.Namespace) -> int:
    from cluster.dashboards.grafana_client import Grafana  # needs `grafana-api`, `write` does not
    from cluster.dashboards.push import push

    token = args.token or os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise HeliostatError(f"no token: say --token, or set {TOKEN_VARIABLE}")
    print(push(Grafana(args.grafana, token), args.folder, args.datasource))
    return 0
