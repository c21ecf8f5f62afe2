"""Hugging Face's Trainer over an objective: its loop, seeds, checkpoints, precision and devices; our loss."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import (
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from finetune.cache_conditioned import TokenPair
from finetune.objective import IGNORED, Objective, collate_right
from finetune.settings import Settings

Tell = Callable[[str], None]
"""Takes one line for people."""
TRAINED_FILE = "trained.safetensors"
_SCHEDULES = {"cosine": "cosine_with_min_lr", "linear": "linear", "constant": "constant_with_warmup"}


class Pairs(Dataset[TokenPair]):
    """Token pairs, as a data loader takes them."""

    def __init__(self, pairs: Sequence[TokenPair]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> TokenPair:
        return self._pairs[index]


class PairTrainer(Trainer):  # type: ignore[misc]
    """Trains an `Objective`; a checkpoint holds what trains and no copy of the base."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """Mean over the response tokens of the whole accumulated batch, on all devices together."""
        labels = inputs["labels"]
        total = cross_entropy(model(**inputs).float(), labels[labels != IGNORED], reduction="sum")
        if num_items_in_batch is None:
            return total / (labels != IGNORED).sum()
        # Gradients are averaged over devices, and the count is of all of them.
        devices: int = self.accelerator.num_processes
        return total * devices / num_items_in_batch

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, `[batch, 2]` (summed loss, whether every token is right), and `[batch]` response tokens."""
        labels = self._prepare_inputs(inputs)["labels"]
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**self._prepare_inputs(inputs)).float()
        real = labels != IGNORED
        sample, target = real.nonzero()[:, 0], labels[real]
        losses = torch.zeros(len(labels), device=labels.device).index_add_(
            0, sample, cross_entropy(logits, target, reduction="none")
        )
        wrong = torch.zeros_like(losses).index_add_(0, sample, (logits.argmax(-1) != target).float())
        tokens = real.sum(dim=1)
        return losses.sum() / tokens.sum(), torch.stack([losses, (wrong == 0).float()], dim=1), tokens

    def _save(self, output_dir: str | None = None, state_dict: object = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach().contiguous() for name, p in _trained(self.model)}, folder / TRAINED_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / TRAINED_FILE)
        with torch.no_grad():
            for name, parameter in _trained(self.model):
                parameter.copy_(saved[name])


class Telling(TrainerCallback):  # type: ignore[misc]
    """One line for each log entry of the run."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **kwargs: object,
    ) -> None:
        if not state.is_world_process_zero:
            return
        if "loss" in logs:
            self._tell(f"step {state.global_step} of {state.max_steps}: loss {float(logs['loss']):.4f}")
        elif "eval_exact_match" in logs:
            self._tell(
                f"step {state.global_step}: held-out loss {logs['eval_mean_loss']:.4f}, "
                f"exact match {logs['eval_exact_match']:.1%}"
            )


def build_trainer(
    settings: Settings,
    objective: Objective,
    train: Sequence[TokenPair],
    held_out: Sequence[TokenPair],
    folder: Path,
    tell: Tell,
) -> PairTrainer:
    """A trainer that keeps its checkpoints in `folder`."""
    trainer = PairTrainer(
        model=objective,
        args=_arguments(settings, folder, evaluates=bool(held_out)),
        train_dataset=Pairs(train),
        eval_dataset=Pairs(held_out) if held_out else None,
        data_collator=lambda pairs: collate_right(pairs, 0),
        compute_metrics=_metrics,
        callbacks=[Telling(tell)],
    )
    trainer.remove_callback(PrinterCallback)
    if settings.bar:
        # The bar without its dictionaries: `Telling` says the same in words.
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(_Bar())
    return trainer


class _Bar(ProgressCallback):  # type: ignore[misc]
    def on_log(self, *args: object, **kwargs: object) -> None:
        """Says nothing."""


def _arguments(settings: Settings, folder: Path, evaluates: bool) -> TrainingArguments:
    eval_every = settings.eval_every if evaluates else None
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps or -1,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        lr_scheduler_kwargs={"min_lr_rate": settings.floor} if settings.schedule == "cosine" else None,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        max_grad_norm=settings.clip,
        seed=settings.seed,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        eval_strategy="steps" if eval_every else "no",
        eval_steps=eval_every,
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 500,
        save_total_limit=2,
        logging_steps=10,
        # Trainer refuses bfloat16 on a machine without accelerator unless told that the CPU is meant.
        use_cpu=not torch.accelerator.is_available(),
        disable_tqdm=not settings.bar,
        report_to="none",
        log_level="error",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    losses, right = prediction.predictions.T
    return {
        "mean_loss": float(losses.sum() / prediction.label_ids.sum()),
        "exact_match": float(right.mean()),
        "samples": float(len(right)),
    }


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
