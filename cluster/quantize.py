"""`heliostat quantize`: makes QSUN's decode module, and says what it lost."""

import argparse
import sys

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from finetune.quantize import SERVED_BITS, QuantizeSettings, quantize
from finetune.quantize_layers import QuantizeMethod
from kvtransfer.card import ModuleCard

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def quantize_command(args: argparse.Namespace) -> int:
    """The whole command; raises HeliostatError and leaves nothing behind."""
    settings = QuantizeSettings(
        method=QuantizeMethod(args.method),
        bits=args.bits,
        group_size=args.group_size,
        samples=args.samples,
        dtype=_DTYPES[args.dtype],
    )
    with _progress() as progress:
        task = progress.add_task(f"{args.method}, {args.bits} bits", total=1.0)
        card = quantize(
            args.base,
            args.out,
            settings,
            args.data,
            progress=lambda share: progress.update(task, completed=share),
        )
    _tell(args, card)
    return 0


def _tell(args: argparse.Namespace, card: ModuleCard) -> None:
    print(f"{args.out}: {args.bits} bits, groups of {args.group_size}, {args.method}")
    print(f"  weights are off by {card.metrics['mean_relative_weight_error']:.1%} on average")
    if "mean_relative_output_error" in card.metrics:
        print(f"  outputs of its linear maps by {card.metrics['mean_relative_output_error']:.1%}")
    print(f"  serve it as a decode pool, with `dtype: {args.dtype}` in the spec's family")
    if args.bits != SERVED_BITS:
        print(f"heliostat: vLLM on CPU runs {SERVED_BITS} bits only; this is for training", file=sys.stderr)


def _progress() -> Progress:
    """On stderr, so that stdout can be piped; silent where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
