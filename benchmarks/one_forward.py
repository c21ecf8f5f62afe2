"""What a training step costs as one forward by role and as two with a cache between them.

    python -m benchmarks.one_forward

CPU time of forward, loss and backward, one thread, no optimizer; the two forms take turns. Batches are
held-out samples of the quickstart family: 64 for its base, 16 for a random Llama of 19 million weights.
Not covered: GPUs, and the longer prompts of real data.
"""

import argparse
import copy
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from benchmarks.report import REPOSITORY, RESULTS, Metric, make_report, render, write_json
from finetune.data import make_encoder, read_samples
from finetune.modules import freeze_unreached
from finetune.objective import IGNORED, Objective, OneForward, TwoForwards, collate_right
from finetune.settings import ALL_LINEARS, DataSettings
from finetune.views import plain_view

QUICKSTART = REPOSITORY / "examples" / "quickstart"
BASE = QUICKSTART / "weights" / "base"
WAYS = ("sun", "prefillshare", "sun_lora")


def make_pair(base: PreTrainedModel, way: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Prefill and decode module of one way, both from `base`; what trains is what trains in a run."""
    trained = copy.deepcopy(base)
    if way == "sun_lora":
        get_peft_model(trained, LoraConfig(r=16, lora_alpha=32, target_modules=list(ALL_LINEARS)))
        frozen = plain_view(trained)
    else:
        frozen = copy.deepcopy(base)
    frozen.requires_grad_(False)
    if way == "prefillshare":
        return frozen, trained
    freeze_unreached(trained, frozen)
    return trained, frozen


def step_ms(objective: Objective, batch: Mapping[str, Tensor]) -> float:
    """CPU milliseconds of one forward, loss and backward."""
    objective.zero_grad()
    labels = batch["labels"]
    start = time.process_time()
    torch.autograd.backward(cross_entropy(objective(**batch), labels[labels != IGNORED]))
    return (time.process_time() - start) * 1e3


def measure(
    base: PreTrainedModel, batch: Mapping[str, Tensor], rounds: int, name: str
) -> Iterator[tuple[str, Metric]]:
    """Each way's step as one forward, the step as two beside it, and how many times as fast one is."""
    for way in WAYS:
        prefill, decode = make_pair(base, way)
        forms = (OneForward(prefill, decode), TwoForwards(prefill, decode, ""))
        for form in forms:
            step_ms(form.train(), batch)
        taken = [[step_ms(form, batch) for form in forms] for _ in range(rounds)]
        one, two = (median(times) for times in zip(*taken, strict=True))
        yield f"{name}_{way}_step", Metric(value=one, unit="ms", better="lower", peer=two)
        speed = median(pair[1] / pair[0] for pair in taken)
        yield f"{name}_{way}_speed", Metric(value=speed, unit="times", better="higher", goal=1.0)


def sample_batch(count: int) -> dict[str, Tensor]:
    """The first `count` held-out samples of `home`."""
    data = DataSettings(str(QUICKSTART / "heldout" / "home.jsonl"))
    samples = read_samples(data, make_encoder(BASE), 2048, 0)
    return collate_right(samples.train[:count], 0)


def random_model() -> PreTrainedModel:
    """A Llama of 19 million weights over the quickstart's vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=101,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def main() -> None:
    """Print the table and write it beside the other results."""
    parser = argparse.ArgumentParser(description="A training step as one forward and as two.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS / "one_forward.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    quickstart = AutoModelForCausalLM.from_pretrained(BASE).eval()
    metrics = dict(measure(quickstart, sample_batch(64), args.rounds, "quickstart"))
    metrics |= dict(measure(random_model(), sample_batch(16), args.rounds, "llama_19m"))
    report = make_report(args.rounds, metrics)
    write_json(report, args.out)
    render(report, Console(), title="One training step", value="one forward", peer="two forwards")


if __name__ == "__main__":
    main()
