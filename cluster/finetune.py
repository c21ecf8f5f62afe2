"""`heliostat finetune`: trains a module that fits its partner, and says how good it is."""

import argparse
import os
import sys

from finetune.recipes import finetune, silent
from finetune.settings import DataSettings, Lora, Settings
from heliostat.errors import HeliostatError
from kvtransfer.card import Method, ModuleCard

_WHERE = {"prefill": "a prefill module", "decode": "a decode module", "both": "both roles"}


def finetune_command(args: argparse.Namespace) -> int:
    """The whole command; raises HeliostatError. Checkpoints remain in OUT.partial, and nothing in OUT."""
    settings = _settings(args)
    # Under torchrun or accelerate launch, one process speaks for all.
    speaks = os.environ.get("RANK", "0") == "0"
    card = finetune(settings, _data(args), tell=_tell if speaks else silent)
    if speaks:
        _result(args, card)
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    lora = _lora(args)
    adapts = lora is not None or args.method == "icarus"
    if args.eval_every and args.eval_data is None and args.eval_split is None:
        raise HeliostatError("--eval-every needs samples to measure on: give --eval-data or --eval-split")
    return Settings(
        method=Method(args.method),
        base=args.base,
        out=args.out,
        decode=args.decode,
        lora=lora,
        epochs=args.epochs,
        steps=args.steps,
        batch_size=args.batch_size,
        gradient_accumulation=args.gradient_accumulation,
        learning_rate=args.learning_rate or (2e-4 if adapts else 2e-5),
        warmup=args.warmup,
        schedule=args.schedule,
        weight_decay=args.weight_decay,
        seed=args.seed,
        precision=args.precision,
        gradient_checkpointing=args.gradient_checkpointing,
        eval_every=args.eval_every,
        save_every=args.save_every,
        resume=args.resume,
        bar=sys.stderr.isatty(),
    )


def _data(args: argparse.Namespace) -> DataSettings:
    held_out = args.eval_data if args.eval_data is not None else args.eval_split
    return DataSettings(args.data, args.split, held_out, args.raw, args.max_length)


def _lora(args: argparse.Namespace) -> Lora | None:
    if args.lora is None and args.method != "icarus":
        if args.lora_alpha is not None or args.lora_targets is not None:
            raise HeliostatError("--lora-alpha and --lora-targets need --lora RANK")
        return None
    rank = args.lora or 16
    targets = tuple(name.strip() for name in (args.lora_targets or "").split(",") if name.strip())
    return Lora(rank, args.lora_alpha or 2.0 * rank, targets)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _result(args: argparse.Namespace, card: ModuleCard) -> None:
    print(f"{args.out}: {card.method}, {card.kind} for {_WHERE[card.role]}")
    if card.metrics:
        print(
            f"held out: exact match {card.metrics['heldout_exact_match']:.1%} of "
            f"{card.metrics['heldout_samples']:.0f}, loss {card.metrics['heldout_loss']:.4f}"
        )
