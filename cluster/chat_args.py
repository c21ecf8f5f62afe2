"""What `heliostat chat` may be told. Imports nothing heavy, so that other commands stay light."""

import argparse

from cluster.flag_types import count, json_object, not_negative
from cluster.serve_args import DEFAULT_URL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to ask, and how."""
    parser.add_argument("--model", metavar="NAME", help="whom to ask first (default: the only one there is)")
    parser.add_argument(
        "--url",
        default=DEFAULT_URL,
        help="a Heliostat cluster, or any other OpenAI-compatible server (default: %(default)s)",
    )
    parser.add_argument("--system", default="", metavar="TEXT", help="what all models are told beforehand")
    parser.add_argument("--temperature", type=not_negative, metavar="T", help="0: always the likeliest token")
    parser.add_argument("--max-tokens", type=count, metavar="N", help="of one answer, at most")
    parser.add_argument(
        "--extra-body",
        type=json_object,
        metavar="JSON",
        help='further keys of each request, like {"reasoning_effort": "low"}',
    )
    parser.add_argument(
        "--session",
        default="",
        metavar="NAME",
        help="the conversation's, for the router (default: by chance)",
    )
