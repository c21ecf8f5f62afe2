"""What `heliostat simulate` may be told.

Imports nothing of the simulator, so that other commands stay light.
"""

import argparse
from pathlib import Path

from cluster.flag_types import count, natural, not_negative, positive

DEFAULT_SLO = "ttft=2s,tpot=25ms"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags, in groups."""
    parser.add_argument("spec", type=Path, help="the cluster's spec file (YAML)")
    _workload(parser.add_argument_group("what arrives"))
    _cluster(parser.add_argument_group("what serves it"))
    _question(parser.add_argument_group("what is asked"))
    _output(parser.add_argument_group("what comes out"))


def _workload(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workload",
        metavar="KIND",
        help="poisson, uniform, gamma, bursts, ramp, agents, mooncake or azure (default: poisson; with "
        "--trace mooncake for .jsonl and azure for .csv)",
    )
    group.add_argument(
        "--workload-file", type=Path, metavar="YAML", help="all of a workload's keys; flags go before it"
    )
    group.add_argument(
        "--rate",
        type=positive,
        nargs="+",
        metavar="R",
        help="sessions per second, a single request being a session; several rates are a sweep",
    )
    group.add_argument(
        "--duration", type=positive, metavar="S", help="seconds; of a trace, in its own time (default: 600)"
    )
    group.add_argument("--trace", type=Path, metavar="PATH", help="a trace to replay")
    group.add_argument(
        "--speed", type=positive, nargs="+", metavar="X", help="2 replays a trace twice as fast; or a sweep"
    )
    group.add_argument(
        "--zipf",
        type=not_negative,
        metavar="S",
        help="skew of the models' popularity, the spec's first leading; 0: even",
    )
    group.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of everything drawn (default: 0)"
    )
    group.add_argument(
        "--rounds",
        type=count,
        default=1,
        metavar="N",
        help="runs with seeds N, N+1, …; tables show medians (default: 1)",
    )


def _cluster(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--as",
        dest="topology",
        default="spec",
        metavar="TOPOLOGY",
        help="another topology for the same models: "
        "dedicated, sun, qsun, sun-lora, prefillshare, icarus, colocated, colocated-icarus (default: spec)",
    )
    group.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="TOPOLOGY",
        help="these topologies beside it, under the same load",
    )
    group.add_argument(
        "--gpu", default="h100", help="a100, h100, h200 or b200, as its datasheet has it (default: h100)"
    )
    group.add_argument(
        "--link", choices=("nvlink", "nic"), default="nic", help="what handoffs travel over (default: nic)"
    )
    group.add_argument(
        "--calibration", type=Path, metavar="FILE", help="what `heliostat calibrate` measured on real engines"
    )
    group.add_argument(
        "--policy",
        metavar="P",
        help="how replicas are chosen: prefill=NAME,decode=NAME (default: the spec's)",
    )
    group.add_argument(
        "--autoscale", action="store_true", help="pools scale between their min and max (docs/autoscaling.md)"
    )
    group.add_argument(
        "--start",
        type=positive,
        metavar="S",
        help="with --autoscale: seconds that a replica takes to start (default: the pools' start_s)",
    )
    group.add_argument("--routers", type=count, metavar="N", help="router replicas (default: the spec's)")


def _question(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--slo", default=DEFAULT_SLO, metavar="SLO", help="what makes a request good (default: %(default)s)"
    )
    group.add_argument(
        "--find-min-gpus", action="store_true", help="search for the fewest GPUs that keep the SLO"
    )
    group.add_argument(
        "--attainment",
        type=float,
        default=0.95,
        metavar="SHARE",
        help="of requests that must (default: 0.95)",
    )
    group.add_argument(
        "--max-gpus", type=count, default=256, metavar="N", help="where the search gives up (default: 256)"
    )


def _output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json", action="store_true", help="machine-readable")
    group.add_argument("--plots", type=Path, metavar="DIR", help="write pictures (SVG) there")
