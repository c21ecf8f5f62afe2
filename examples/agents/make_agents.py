"""Make the agents' family again: tokenizer, base, specialists, held-out figures, provenance.

    python examples/agents/make_agents.py                          what is missing in examples/agents/weights
    python examples/agents/make_agents.py --out DIR --only base    into DIR/weights, and nothing but this

The specialists are ICaRus adapters on one base: they read one KV cache and write none. Twenty minutes and
more of one core; the same seed gives the same weights on the same machine.
"""

import argparse
import json
import platform
import random
import shutil
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from base import STAGES, measure_base, train_stage
from family import build_model, build_tokenizer
from specialists import Sample, draw_sample
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from finetune.cache_conditioned import collate
from finetune.icarus import icarus_logits
from finetune.recipes import finetune_pairs
from finetune.reference import load_adapted, load_module
from finetune.settings import Lora, Settings
from kvtransfer.card import Method

HELD_OUT = 600
CONVERSATIONS = 300
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "safetensors")


@dataclass(frozen=True)
class Recipe:
    """How one specialist is trained."""

    skill: str
    steps: int = 300
    rank: int = 8
    learning_rate: float = 5e-3
    batch_size: int = 32
    seed: int = 0


# `strict` and `novice` are judges, too: the same skill, from other samples, in fewer steps, with less room.
RECIPES = {
    "read": Recipe("read"),
    "check": Recipe("check"),
    "math": Recipe("math"),
    "plan": Recipe("plan", steps=400, rank=16),
    "korean": Recipe("korean"),
    "strict": Recipe("check", steps=150, rank=4, seed=1),
    "novice": Recipe("check", steps=60, rank=2, seed=2),
}


def make_base(out: Path, seed: int) -> dict[str, object]:
    """Train, measure and save the base. A run that was broken off goes on with the stage that it was in."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = build_model(tokenizer)
    for number, stage in enumerate(STAGES, start=1):
        done = out.with_name(f"{out.name}.stage-{number}")
        if done.exists():
            model = LlamaForCausalLM.from_pretrained(done)
            continue
        with tqdm(total=stage.steps, unit="step") as progress:
            train_stage(model, tokenizer, stage, random.Random(f"{seed}/base/{number}"), progress)
        model.save_pretrained(done)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for folder in out.parent.glob(f"{out.name}.stage-*"):
        shutil.rmtree(folder)
    heldout = measure_base(model, tokenizer, random.Random(f"{seed}/heldout base"), CONVERSATIONS)
    return {
        "method": "base",
        "parameters": model.num_parameters(),
        "steps": [stage.steps for stage in STAGES],
        "learning_rates": [stage.learning_rate for stage in STAGES],
        "batch_size": STAGES[0].batch_size,
        "heldout_by_kind": heldout,
    }


def make_specialist(base: Path, out: Path, name: str, recipe: Recipe, seed: int) -> dict[str, object]:
    """Train one adapter with the project's recipe for ICaRus, and measure it."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rng = random.Random(f"{seed}/{name}")
    train = [draw_sample(recipe.skill, rng) for _ in range(recipe.steps * recipe.batch_size)]
    held_out = held_out_samples(recipe.skill, seed)
    settings = Settings(
        method=Method.ICARUS,
        base=str(base),
        out=out,
        lora=Lora(recipe.rank, 2.0 * recipe.rank),
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup=30,
        seed=recipe.seed,
        bar=True,
    )
    card = finetune_pairs(
        settings,
        [sample.token_pair(tokenizer) for sample in train],
        [sample.token_pair(tokenizer) for sample in held_out],
        tell=lambda line: print(f"{name}: {line}", flush=True),
    )
    return {
        **asdict(recipe),
        "method": str(Method.ICARUS),
        "heldout": {"exact_match": card.metrics["heldout_exact_match"], "samples": HELD_OUT},
        "heldout_by_kind": measure(base, out, tokenizer, held_out),
    }


def held_out_samples(skill: str, seed: int) -> list[Sample]:
    """Over lists that nobody saw in training."""
    rng = random.Random(f"{seed}/heldout {skill}")
    return [draw_sample(skill, rng, heldout=True) for _ in range(HELD_OUT)]


@torch.inference_mode()
def measure(
    base: Path, adapter: Path, tokenizer: PreTrainedTokenizerFast, samples: list[Sample]
) -> dict[str, dict[str, float | int]]:
    """Greedy exact match by kind of question; the base writes all KV."""
    writer, reader = load_module(base), load_adapted(base, adapter)
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(samples), 50):
        part = samples[start : start + 50]
        batch = collate([sample.token_pair(tokenizer) for sample in part], tokenizer.pad_token_id)
        guessed = icarus_logits(writer, reader, batch).argmax(-1) == batch.response_ids
        whole = (guessed | ~batch.response_mask.bool()).all(dim=1).tolist()
        for sample, good in zip(part, whole, strict=True):
            right[sample.kind].append(good)
    return {
        kind: {"exact_match": round(sum(found) / len(found), 4), "samples": len(found)}
        for kind, found in sorted(right.items())
    }


def main() -> None:
    """Make what is not there, and write down what came of it."""
    parser = argparse.ArgumentParser(description="Make the agents' family: weights, held-out figures.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=["base", *RECIPES], default=["base", *RECIPES])
    arguments = parser.parse_args()
    out: Path = arguments.out
    torch.set_num_threads(1)
    weights, file = out / "weights", out / "provenance.json"
    modules: dict[str, object] = json.loads(file.read_text())["modules"] if file.exists() else {}
    for name in arguments.only:
        if (weights / name).exists() and name in modules:
            continue
        if name == "base":
            modules[name] = make_base(weights / name, arguments.seed)
        else:
            modules[name] = make_specialist(
                weights / "base", weights / name, name, RECIPES[name], arguments.seed
            )
        provenance = {
            "command": f"python examples/agents/make_agents.py --seed {arguments.seed}",
            "seed": arguments.seed,
            "libraries": {"python": platform.python_version()} | {each: version(each) for each in LIBRARIES},
            "modules": {each: modules[each] for each in ("base", *RECIPES) if each in modules},
        }
        file.write_text(json.dumps(provenance, indent=2) + "\n")


if __name__ == "__main__":
    main()
