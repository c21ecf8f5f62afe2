"""Make the quickstart family again: tokenizer, base, three shared modules, held-out samples, provenance.

    python examples/quickstart/make_family.py

Everything is trained from scratch on one CPU thread in some minutes; the same seed gives the same weights on
the same machine. Full fine-tunes are trained too, as the naive-pairing control, and thrown away.
"""

import argparse
import copy
import hashlib
import json
import platform
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import cos, pi
from pathlib import Path

import torch
from tasks import BASE_TASKS, MODULE_TASKS, Sample, Task, heldout_samples, render_prompt, training_sample
from tiny_llama import END, ROLES, UNKNOWN, chat_tokenizer, untrained_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from finetune.cache_conditioned import Batch, Recipe, cache_conditioned_loss, collate, train_only
from finetune.exact_match import ExactMatch, exact_match

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role not in ['system', 'user', 'assistant', 'tool'] -%}
{{- raise_exception('Unknown role ' ~ message.role) -}}
{%- endif -%}
{{- '<|' ~ ('user' if message.role == 'tool' else message.role) ~ '|>' ~ (message.content or '') -}}
{%- if message.role == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
BATCH_SIZE = 64
# Shares of the batches that open with a system message or an earlier turn. A whole batch has it or has not,
# so that short batches stay short.
SYSTEM_SHARE = 0.2
EARLIER_TURN_SHARE = 0.15
SYSTEM_ALPHABET = "abcdefghijklmnopqrstuvwxyz" * 3 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;'" + " " * 14
MEASURED_SAMPLES = 600
STORED_SAMPLES = 200


@dataclass(frozen=True)
class Schedule:
    """Steps at a learning rate that warms up and falls along a cosine to `floor` of its peak."""

    steps: int
    learning_rate: float
    warmup: int = 30
    floor: float = 0.05
    weight_decay: float = 0.0

    def scale(self, step: int) -> float:
        """The share of the peak rate at `step`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.floor + (1 - self.floor) * (1 + cos(pi * progress)) / 2


@dataclass(frozen=True)
class Module:
    """A module to train against the frozen base."""

    name: str
    recipe: Recipe
    task: str
    schedule: Schedule

    @property
    def role(self) -> str:
        """The role in which the module serves; the base takes the other one."""
        return "prefill" if self.recipe is Recipe.SUN else "decode"


BASE_SCHEDULE = Schedule(steps=2000, learning_rate=4e-3, warmup=100, floor=0.0, weight_decay=0.05)
FULL_SCHEDULE = Schedule(steps=120, learning_rate=2e-3)
MODULES = (
    Module("home-prefill", Recipe.SUN, "home", Schedule(steps=200, learning_rate=2e-3)),
    Module("mirror-prefill", Recipe.SUN, "mirror", Schedule(steps=200, learning_rate=2e-3)),
    Module("spell-decode", Recipe.PREFILLSHARE, "spell", Schedule(steps=200, learning_rate=2e-3)),
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: printable ASCII, newline, the special tokens, and `<unk>` for all else."""
    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {token: index for index, token in enumerate([UNKNOWN, END, *ROLES, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return chat_tokenizer(tokenizer, CHAT_TEMPLATE)


class Maker:
    """Trains and measures pairs on text samples; holds what every stage needs."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, progress: "tqdm[None]") -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.progress = progress

    def rng(self, stage: str) -> random.Random:
        """A stage's own random numbers, so that a change in one stage leaves the others as they are."""
        return random.Random(f"{self.seed}/{stage}")

    def token_pairs(
        self, prompts: Sequence[str], responses: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """Token ids of rendered prompts and of the responses with their end token."""
        prompt_ids: list[list[int]] = self.tokenizer(list(prompts)).input_ids
        response_ids: list[list[int]] = self.tokenizer([text + END for text in responses]).input_ids
        return list(zip(prompt_ids, response_ids, strict=True))

    def training_batch(self, tasks: Sequence[Task], rng: random.Random) -> Batch:
        """Fresh samples, some batches with a system message or an earlier turn before them."""
        with_system, with_turn = rng.random() < SYSTEM_SHARE, rng.random() < EARLIER_TURN_SHARE
        prompts, responses = [], []
        for _ in range(BATCH_SIZE):
            sample = training_sample(rng.choice(tasks), rng)
            system = "".join(rng.choices(SYSTEM_ALPHABET, k=rng.randint(3, 48))) if with_system else ""
            earlier = (training_sample(rng.choice(tasks), rng),) if with_turn else ()
            prompts.append(render_prompt(sample.prompt, system, earlier))
            responses.append(sample.response)
        return collate(self.token_pairs(prompts, responses), self.tokenizer.pad_token_id)

    def train(
        self,
        stage: str,
        pair: tuple[LlamaForCausalLM, LlamaForCausalLM],
        parameters: Sequence[nn.Parameter],
        tasks: Sequence[Task],
        schedule: Schedule,
    ) -> None:
        """Train `parameters` so that the (prefill, decode) pair answers the tasks."""
        rng = self.rng(stage)
        optimizer = torch.optim.AdamW(
            parameters, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay
        )
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.scale)
        for step in range(schedule.steps):
            loss = cache_conditioned_loss(*pair, self.training_batch(tasks, rng))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            rate.step()
            if step % 10 == 0:
                self.progress.set_description(f"{stage}, loss {loss.item():.3f}")
            self.progress.update()

    def measure(
        self, pair: tuple[LlamaForCausalLM, LlamaForCausalLM], samples: Sequence[Sample]
    ) -> dict[str, float | int]:
        """Held-out exact match of a pair, as it goes into the provenance."""
        prompts = [render_prompt(sample.prompt) for sample in samples]
        pairs = self.token_pairs(prompts, [sample.response for sample in samples])
        result: ExactMatch = exact_match(*pair, pairs, self.tokenizer.pad_token_id)
        return {"exact_match": round(result.accuracy, 4), "samples": result.samples}

    def save(self, model: LlamaForCausalLM, folder: Path) -> str:
        """Write a complete checkpoint; return the digest of its weights."""
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def write_heldout(path: Path, samples: Sequence[Sample]) -> None:
    """Write the first samples of what was measured, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": sample.prompt, "response": sample.response}) for sample in samples]
    path.write_text("\n".join(lines[:STORED_SAMPLES]) + "\n")


def make_base(maker: Maker, out: Path) -> tuple[LlamaForCausalLM, dict[str, object]]:
    """Train, measure and save the base on its eight tasks."""
    base = untrained_model(maker.tokenizer)
    maker.train("base", (base, base), list(base.parameters()), list(BASE_TASKS.values()), BASE_SCHEDULE)
    each = MEASURED_SAMPLES // len(BASE_TASKS)
    by_task = {
        name: heldout_samples(task, each, maker.rng(f"heldout {name}")) for name, task in BASE_TASKS.items()
    }
    # Task after task in turn, so that any first part of the list is an even mixture.
    samples = [sample for row in zip(*by_task.values(), strict=True) for sample in row]
    write_heldout(out / "heldout" / "base.jsonl", samples)
    facts: dict[str, object] = {
        "method": "base",
        "role": "prefill and decode",
        "task": ", ".join(BASE_TASKS),
        **asdict(BASE_SCHEDULE),
        "parameters": base.num_parameters(),
        "pair": {"prefill": "base", "decode": "base"},
        "heldout": maker.measure((base, base), samples),
        "heldout_by_task": {name: maker.measure((base, base), part) for name, part in by_task.items()},
        "sha256": maker.save(base, out / "weights" / "base"),
    }
    return base, facts


def make_module(maker: Maker, base: LlamaForCausalLM, module: Module, out: Path) -> dict[str, object]:
    """Train, measure and save one module that shares the base."""
    trained = copy.deepcopy(base)
    pair = (trained, base) if module.role == "prefill" else (base, trained)
    parameters = train_only(module.recipe, *pair)
    maker.train(module.name, pair, parameters, [MODULE_TASKS[module.task]], module.schedule)
    samples = heldout_samples(
        MODULE_TASKS[module.task], MEASURED_SAMPLES, maker.rng(f"heldout {module.task}")
    )
    write_heldout(out / "heldout" / f"{module.task}.jsonl", samples)
    return {
        "method": str(module.recipe),
        "role": module.role,
        "task": module.task,
        **asdict(module.schedule),
        "parameters": trained.num_parameters(),
        "pair": {"prefill": "base", "decode": "base", module.role: module.name},
        "heldout": maker.measure(pair, samples),
        "sha256": maker.save(trained, out / "weights" / module.name),
    }


def measure_controls(maker: Maker, base: LlamaForCausalLM, name: str) -> dict[str, object]:
    """What sharing without its recipe gives on a task: the base alone, and an ordinary fine-tune, mixed."""
    full = copy.deepcopy(base).requires_grad_(True)
    task = MODULE_TASKS[name]
    maker.train(f"{name}, full fine-tune", (full, full), list(full.parameters()), [task], FULL_SCHEDULE)
    samples = heldout_samples(task, MEASURED_SAMPLES, maker.rng(f"heldout {name}"))
    return {
        "base": maker.measure((base, base), samples),
        "full": {**asdict(FULL_SCHEDULE), **maker.measure((full, full), samples)},
        "naive_full_prefill_base_decode": maker.measure((full, base), samples),
        "naive_base_prefill_full_decode": maker.measure((base, full), samples),
    }


def main() -> None:
    """Make the family."""
    parser = argparse.ArgumentParser(
        description="Make the quickstart family: weights, held-out samples, facts."
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out
    seed: int = arguments.seed

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    total = BASE_SCHEDULE.steps + sum(module.schedule.steps + FULL_SCHEDULE.steps for module in MODULES)
    with tqdm(total=total, unit="step") as progress:
        maker = Maker(build_tokenizer(), seed, progress)
        base, base_facts = make_base(maker, out)
        modules = {"base": base_facts}
        for module in MODULES:
            modules[module.name] = make_module(maker, base, module, out)
        controls = {module.task: measure_controls(maker, base, module.task) for module in MODULES}
    libraries = {name: version(name) for name in ("torch", "transformers", "tokenizers", "safetensors")}
    provenance = {
        "command": f"python examples/quickstart/make_family.py --seed {seed}",
        "seed": seed,
        "libraries": {"python": platform.python_version(), **libraries},
        "batch_size": BATCH_SIZE,
        "modules": modules,
        "controls": controls,
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")


if __name__ == "__main__":
    main()
