"""What `heliostat finetune` may be told.

Imports neither torch nor transformers, so that other commands stay light.
"""

import argparse
from pathlib import Path

from cluster.flag_types import count, natural, not_negative, positive, share

METHODS = ("sun", "qsun", "prefillshare", "icarus", "full")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags, in groups."""
    parser.add_argument(
        "method",
        choices=METHODS,
        help="sun and qsun train a prefill module, prefillshare and icarus a decode module, each against the "
        "frozen other side; full is an ordinary fine-tune for both roles",
    )
    parser.add_argument("--base", required=True, metavar="DIR|HUB", help="the family's base")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the module, when it is whole")
    parser.add_argument(
        "--decode", type=Path, metavar="DIR", help="qsun: what `heliostat quantize` made of the base"
    )
    _data(parser.add_argument_group("samples"))
    _adapter(parser.add_argument_group("an adapter instead of full weights"))
    _training(parser.add_argument_group("training"))
    _run(parser.add_argument_group("the run"))


def _data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        required=True,
        metavar="FILE|NAME",
        help='JSONL with {"prompt", "response"} or {"messages"}, or a Hugging Face data set of such rows',
    )
    group.add_argument("--split", default="train", help="of a data set (default: %(default)s)")
    group.add_argument("--raw", action="store_true", help="prompts as they are, without the chat template")
    group.add_argument(
        "--max-length", type=count, metavar="N", help="tokens; longer samples are left out and counted"
    )
    held_out = group.add_mutually_exclusive_group()
    held_out.add_argument("--eval-data", type=Path, metavar="FILE", help="JSONL of samples to measure on")
    held_out.add_argument("--eval-split", type=share, metavar="F", help="or this share of --data, 0 to 1")


def _adapter(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--lora", type=count, metavar="RANK", help="train a LoRA (icarus: always, default 16)")
    group.add_argument("--lora-alpha", type=positive, metavar="A", help="scale (default: twice the rank)")
    group.add_argument(
        "--lora-targets",
        metavar="NAME,…",
        help="layers (default: all seven linears; icarus: q_proj,o_proj,gate_proj,up_proj,down_proj)",
    )


def _training(group: argparse._ArgumentGroup) -> None:
    length = group.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=positive, default=3.0, metavar="N", help="(default: %(default)s)")
    length.add_argument("--steps", type=count, metavar="N", help="optimizer steps, instead of epochs")
    group.add_argument("--batch-size", type=count, default=16, metavar="N", help="(default: %(default)s)")
    group.add_argument(
        "--gradient-accumulation",
        type=count,
        default=1,
        metavar="N",
        help="batches a step (default: %(default)s)",
    )
    group.add_argument(
        "--learning-rate",
        type=positive,
        metavar="R",
        help="at its peak (default: 2e-5; with an adapter 2e-4)",
    )
    group.add_argument(
        "--warmup", type=natural, default=0, metavar="N", help="steps up to the peak (default: %(default)s)"
    )
    group.add_argument(
        "--schedule",
        choices=("cosine", "linear", "constant"),
        default="cosine",
        help="from the peak; cosine falls to 5 %% (default: %(default)s)",
    )
    group.add_argument("--weight-decay", type=not_negative, default=0.0, metavar="W", help="(default: 0)")
    group.add_argument("--seed", type=natural, default=0, metavar="N", help="(default: %(default)s)")
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the arithmetic; what trains is float32 always (default: %(default)s)",
    )
    group.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory, about a third more time"
    )


def _run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--eval-every", type=count, metavar="N", help="steps (default: at the end only)")
    group.add_argument(
        "--save-every", type=count, metavar="N", help="steps between checkpoints in OUT.partial"
    )
    group.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint of OUT.partial"
    )
