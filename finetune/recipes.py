"""One call from samples to a module that vLLM loads, with its card.

`finetune` reads data by its settings; `finetune_pairs` takes token pairs; `train_pairs` writes no module.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import JsonValue
from transformers import AutoConfig, set_seed
from transformers.utils import logging

from finetune.cache_conditioned import TokenPair
from finetune.data import Samples, make_encoder, read_samples
from finetune.modules import Training, load_training, local_base
from finetune.output import close_partial, open_partial, write_module
from finetune.settings import DataSettings, Settings
from finetune.trainer import Tell, build_trainer
from heliostat.errors import HeliostatError
from kvtransfer.card import ModuleCard
from kvtransfer.contract import Module, read_module

LIBRARIES = ("torch", "transformers", "accelerate", "peft")


def silent(line: str) -> None:
    """Tell nobody."""


def finetune(settings: Settings, data: DataSettings, tell: Tell = silent) -> ModuleCard:
    """Read the data, train, measure, and write the module to `settings.out`. Raises HeliostatError.

    Every sample is read and checked before anything trains.
    """
    settings.check()
    base = local_base(settings.base)
    config = AutoConfig.from_pretrained(base)
    samples = read_samples(data, make_encoder(base, data.raw), config.max_position_embeddings, settings.seed)
    if samples.skipped:
        tell(f"left out {samples.skipped} samples that are longer than --max-length")
    return finetune_pairs(settings, samples.train, samples.held_out, tell)


def finetune_pairs(
    settings: Settings,
    train: Sequence[TokenPair],
    held_out: Sequence[TokenPair] = (),
    tell: Tell = silent,
) -> ModuleCard:
    """Train on token pairs and write the module; `held_out` gives the card its metrics."""
    settings.check()
    base = local_base(settings.base)
    module = read_module(base)
    facts = settings.facts() | {"base": module.weights, "samples": _digest(train)}
    with _partial(settings, facts) as (partial, checkpoint):
        training, metrics = _run(settings, base, Samples(train, held_out), partial, checkpoint, tell)
        card = _card(settings, training, module, metrics, len(train))
        if _writes():
            with _quiet():
                write_module(training.saved, base, partial, settings.out, card)
    return card


def train_pairs(
    settings: Settings, train: Sequence[TokenPair], held_out: Sequence[TokenPair] = ()
) -> tuple[Training, dict[str, float]]:
    """Train in memory: the trained pair and its held-out metrics; `settings.out` is not touched."""
    settings.check()
    with TemporaryDirectory() as folder:
        samples = Samples(train, held_out)
        return _run(settings, local_base(settings.base), samples, Path(folder), None, silent)


def _run(
    settings: Settings, base: Path, samples: Samples, partial: Path, checkpoint: Path | None, tell: Tell
) -> tuple[Training, dict[str, float]]:
    # Before the modules: an adapter's first weights are drawn.
    set_seed(settings.seed)
    with out_of_memory_said(), _quiet():
        training = load_training(settings, base)
        objective = training.objective
        if settings.gradient_checkpointing:
            objective.checkpoint_gradients()
        trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
        tell(f"{settings.method}: {trained:,} weights train on {len(samples.train)} samples, {objective.way}")
        trainer = build_trainer(settings, objective, samples.train, samples.held_out, partial, tell)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return training, _measure(trainer.evaluate()) if samples.held_out else {}


def _measure(found: dict[str, float]) -> dict[str, float]:
    names = {"eval_exact_match": "exact_match", "eval_mean_loss": "loss", "eval_samples": "samples"}
    return {f"heldout_{name}": round(found[key], 6) for key, name in names.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars for loading and saving weights; the bar of the steps is Trainer's own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _partial(settings: Settings, facts: dict[str, JsonValue]) -> Iterator[tuple[Path, Path | None]]:
    partial, checkpoint = open_partial(settings.out, facts, settings.resume)
    try:
        yield partial, checkpoint
    finally:
        close_partial(partial)


@contextmanager
def out_of_memory_said() -> Iterator[None]:
    """Out of memory, on a GPU or in the CPU's allocator, becomes one error that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise HeliostatError(
            "out of memory: lower --batch-size and raise --gradient-accumulation by as much, "
            "or use --gradient-checkpointing, --max-length or --lora; checkpoints stay for --resume"
        ) from error


def _card(
    settings: Settings, training: Training, module: Module, metrics: dict[str, float], samples: int
) -> ModuleCard:
    facts = settings.facts() | {"samples": samples, "way": training.objective.way}
    return ModuleCard(
        method=settings.method,
        role=settings.role,
        kind="adapter" if settings.adapter else "weights",
        base=module.weights,
        partner=training.partner,
        tokenizer=module.contract.tokenizer,
        metrics=metrics,
        training=facts | {name: version(name) for name in LIBRARIES},
    )


def _writes() -> bool:
    """Whether this process is the one of several that writes."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _digest(pairs: Sequence[TokenPair]) -> str:
    return hashlib.blake2b(
        repr([tuple(map(list, pair)) for pair in pairs]).encode(), digest_size=8
    ).hexdigest()
