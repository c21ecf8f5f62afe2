"""What `heliostat models` may be told. Imports nothing heavy, so that other commands stay light."""

import argparse

from cluster.serve_args import DEFAULT_URL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`list`, `add` and `remove`."""
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    listed = what.add_parser("list", help="every model, with its pools and adapters")
    add = what.add_parser(
        "add",
        help="serve one more model",
        description="Serve one more model from pools that run. An adapter is one that the pool lists, a "
        "directory that all hosts have, or a hub name. The model stays until the cluster stops.",
    )
    add.add_argument("name", metavar="NAME", help="what clients will call it")
    for role in ("prefill", "decode"):
        add.add_argument(f"--{role}", required=True, metavar="POOL", help=f"its {role} pool")
        add.add_argument(
            f"--{role}-adapter",
            metavar="ADAPTER",
            help="its adapter there (default: the pool's weights alone)",
        )
    add.add_argument(
        "--untrained-pair",
        action="store_true",
        help="serve modules together that were not trained for each other",
    )
    remove = what.add_parser("remove", help="serve a model no longer; running requests finish")
    remove.add_argument("name", metavar="NAME")
    for command in (listed, add, remove):
        command.add_argument("--url", default=DEFAULT_URL, help="default: %(default)s")
        command.add_argument("--json", action="store_true", help="machine-readable")
