"""Make the modules of this example again, each with one `heliostat` command that is printed before it runs.

    python examples/modules/make_modules.py            all, into examples/modules/weights
    python examples/modules/make_modules.py --out DIR

From the quickstart's base: adapters for SUN (prefill side) and ICaRus (decode side), a quantized decode
module, and QSUN adapters that were trained against it. A few minutes on one core.
"""

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from make_data import write_held_out, write_training

HERE = Path(__file__).parent
BASE = HERE.parent / "quickstart" / "weights" / "base"
TASKS = ("home", "mirror", "spell")
SAMPLES = 64 * 300
HELD_OUT = 600
QUANTIZED = "base-int4"


@dataclass(frozen=True)
class Recipe:
    """What some adapters are trained with."""

    method: str
    tasks: tuple[str, ...]
    steps: int
    rank: int = 16
    learning_rate: str = "5e-3"


# A prefill adapter that has to bring the decoder to a letter it has never written wants more rank and steps:
# `spell` came to 25 % with 16 and 200, and to 65 % with 16 and 400.
RECIPES = (
    Recipe("sun", ("home", "mirror"), 200),
    Recipe("sun", ("spell",), 400, rank=32, learning_rate="3e-3"),
    Recipe("icarus", TASKS, 300),
    Recipe("qsun", ("home", "mirror"), 200),
)


def quantize(out: Path, data: Path) -> list[str]:
    """The command that makes the decode module of QSUN."""
    return [
        "quantize", "--base", str(BASE), "--out", str(out / QUANTIZED), "--bits", "4",
        "--method", "gptq", "--dtype", "float16", "--data", str(data / "home.jsonl"),
    ]  # fmt: skip


def finetune(out: Path, data: Path, recipe: Recipe, task: str) -> list[str]:
    """The command that makes one adapter."""
    decode = ["--decode", str(out / QUANTIZED)] if recipe.method == "qsun" else []
    return [
        "finetune", recipe.method, "--base", str(BASE), *decode, "--lora", str(recipe.rank),
        "--data", str(data / f"{task}.jsonl"), "--eval-data", str(data / f"{task}-held-out.jsonl"),
        "--steps", str(recipe.steps), "--batch-size", "64", "--warmup", "30",
        "--learning-rate", recipe.learning_rate,
        "--out", str(out / f"{task}-{recipe.method}"),
    ]  # fmt: skip


def main() -> None:
    """Write the data, then run the commands one after the other; the first failure ends it."""
    parser = argparse.ArgumentParser(description="Make this example's modules again.")
    parser.add_argument("--out", type=Path, default=HERE / "weights")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with TemporaryDirectory() as folder:
        data = Path(folder)
        for task in TASKS:
            write_training(data / f"{task}.jsonl", task, SAMPLES, 0)
            write_held_out(data / f"{task}-held-out.jsonl", task, HELD_OUT, 0)
        commands = [quantize(out, data)]
        commands += [finetune(out, data, recipe, task) for recipe in RECIPES for task in recipe.tasks]
        for command in commands:
            if Path(command[-1] if "finetune" in command else command[4]).exists():
                continue
            print(f"heliostat {shlex.join(command)}", flush=True)
            subprocess.run([sys.executable, "-m", "cluster.cli", *command], check=True, env=environment)


if __name__ == "__main__":
    main()
