"""What `heliostat quantize` may be told. Imports no torch, so that other commands stay light."""

import argparse
from pathlib import Path

from cluster.flag_types import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags."""
    parser.add_argument(
        "--base", type=Path, required=True, metavar="DIR", help="the family's base, a checkpoint"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the module goes; must be new"
    )
    parser.add_argument(
        "--method",
        choices=("awq", "gptq", "rtn"),
        default="awq",
        help="rtn rounds to nearest and needs no data (default: awq)",
    )
    parser.add_argument(
        "--bits",
        type=int,
        choices=range(3, 9),
        default=4,
        metavar="B",
        help="3 to 8; vLLM's CPU kernel runs 4 only (default: 4)",
    )
    parser.add_argument(
        "--group-size", type=count, default=32, metavar="G", help="inputs that share a scale (default: 32)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE.jsonl",
        help="calibration prompts for awq and gptq: lines with prompt and response, or messages",
    )
    parser.add_argument("--samples", type=count, default=128, metavar="N", help="lines of it (default: 128)")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16"),
        default="bfloat16",
        help="what the cluster runs in, the spec's `family.dtype` (default: bfloat16)",
    )
