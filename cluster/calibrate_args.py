"""What `heliostat calibrate` may be told. Imports nothing of the engines, to keep other commands light."""

import argparse
from pathlib import Path

from cluster.flag_types import count

ROUNDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags."""
    parser.add_argument("spec", type=Path, help="the cluster's spec file (YAML)")
    parser.add_argument("--model", help="whose prefill and decode engines are measured (default: the first)")
    parser.add_argument("--pool", help="a decode pool instead; the first model that names it is measured")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="calibration file (JSON)")
    parser.add_argument(
        "--rounds", type=count, default=ROUNDS, help="medians are over so many (default: %(default)s)"
    )
