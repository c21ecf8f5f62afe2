"""What `heliostat bench` may be told. Imports nothing heavy, so that other commands stay light."""

import argparse
from pathlib import Path

from cluster.flag_types import count, json_object, natural, not_negative, positive
from cluster.serve_args import DEFAULT_URL

DEFAULT_REQUESTS = 100
DEFAULT_CONCURRENCY = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags, in groups."""
    _whom(parser.add_argument_group("who is asked"))
    _load(parser.add_argument_group("how much"))
    _prompts(parser.add_argument_group("what is asked"))
    _output(parser.add_argument_group("what comes out"))


def _whom(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--url",
        default=DEFAULT_URL,
        help="a Heliostat cluster, or any other OpenAI-compatible server (default: %(default)s)",
    )
    group.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="may be said several times (default: the only one there is)",
    )
    group.add_argument(
        "--zipf",
        type=not_negative,
        metavar="S",
        help="skew of the models' popularity, the first leading (default: each in turn)",
    )
    group.add_argument(
        "--api",
        choices=("chat", "completions"),
        default="chat",
        help="which of the two endpoints (default: chat)",
    )
    group.add_argument(
        "--timeout",
        type=positive,
        default=60.0,
        metavar="S",
        help="a request fails when nothing comes for so long, and is in no latency (default: 60)",
    )


def _load(group: argparse._ArgumentGroup) -> None:
    length = group.add_mutually_exclusive_group()
    length.add_argument("--requests", type=count, metavar="N", help=f"how many (default: {DEFAULT_REQUESTS})")
    length.add_argument(
        "--duration", type=positive, metavar="S", help="seconds in which requests begin; all are finished"
    )
    loop = group.add_mutually_exclusive_group()
    loop.add_argument(
        "--concurrency",
        type=count,
        default=DEFAULT_CONCURRENCY,
        metavar="N",
        help="closed loop: so many at a time, each followed by the next, at most one of a session "
        "(default: %(default)s)",
    )
    loop.add_argument(
        "--rate",
        type=positive,
        metavar="R",
        help="open loop: so many begin per second (Poisson), whatever becomes of them",
    )
    group.add_argument(
        "--warmup",
        type=natural,
        default=0,
        metavar="N",
        help="requests before, not counted, in a closed loop, "
        f"{DEFAULT_CONCURRENCY} at a time before an open one (default: 0)",
    )


def _prompts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prompt-tokens",
        type=count,
        default=256,
        metavar="N",
        help="of random words (default: %(default)s)",
    )
    group.add_argument(
        "--shared-prefix-tokens",
        type=natural,
        default=0,
        metavar="N",
        help="so many of them, at the beginning, are those of all requests of a session (default: 0)",
    )
    group.add_argument(
        "--requests-per-session",
        type=count,
        metavar="N",
        help="to the models in turn (default: one for each model, 4 for a single one)",
    )
    group.add_argument(
        "--dataset",
        type=Path,
        metavar="FILE",
        help='instead: JSONL with {"prompt": …} or {"messages": […]}, one after the other',
    )
    group.add_argument(
        "--output-tokens",
        type=count,
        default=64,
        metavar="N",
        help="of each answer, at most; exactly where the server can be told so (default: %(default)s)",
    )
    group.add_argument(
        "--extra-body",
        type=json_object,
        metavar="JSON",
        help='further keys of each request, which win, like {"reasoning_effort": "low"}',
    )
    group.add_argument(
        "--seed", type=natural, metavar="N", help="of all that is drawn (default: by chance, and said)"
    )


def _output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--slo-ttft-ms", type=positive, metavar="MS", help="for goodput")
    group.add_argument("--slo-tpot-ms", type=positive, metavar="MS", help="for goodput")
    group.add_argument("--slo-e2e-ms", type=positive, metavar="MS", help="for goodput, end to end")
    group.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    group.add_argument(
        "--save-requests", type=Path, metavar="FILE", help="write a JSON line for each request there"
    )
