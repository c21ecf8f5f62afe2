"""Data for `heliostat finetune`: chat messages of one task of the quickstart family, one JSON object a line.

    python examples/modules/make_data.py home --samples 12800 --out home.jsonl
    python examples/modules/make_data.py home --held-out --samples 600 --out home-heldout.jsonl

Some conversations open with a system message or an earlier turn. Held-out samples have payloads that no
training sample has (`examples/quickstart/tasks.py`), and no message before them.
"""

import argparse
import json
import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "quickstart"))

from tasks import MODULE_TASKS, Sample, Task, heldout_samples, training_sample

SYSTEM_SHARE = 0.2
EARLIER_TURN_SHARE = 0.15
SYSTEM_ALPHABET = string.ascii_lowercase * 3 + string.ascii_uppercase + string.digits + " .,:;'" + " " * 14

Message = dict[str, str]


def conversations(task: Task, count: int, rng: random.Random, plain: bool) -> Iterator[list[Message]]:
    """Fresh samples for training; `plain` ones have no message before them."""
    for _ in range(count):
        messages: list[Message] = []
        if plain:
            yield turn(training_sample(task, rng))
            continue
        if rng.random() < SYSTEM_SHARE:
            text = "".join(rng.choices(SYSTEM_ALPHABET, k=rng.randint(3, 48)))
            messages.append({"role": "system", "content": text})
        if rng.random() < EARLIER_TURN_SHARE:
            messages += turn(training_sample(task, rng))
        yield messages + turn(training_sample(task, rng))


def turn(sample: Sample) -> list[Message]:
    """What the user writes, and the answer."""
    return [
        {"role": "user", "content": sample.prompt},
        {"role": "assistant", "content": sample.response},
    ]


def write(path: Path, chats: Iterator[list[Message]]) -> None:
    """One conversation a line."""
    with path.open("w") as file:
        for messages in chats:
            file.write(json.dumps({"messages": messages}) + "\n")


def write_training(path: Path, name: str, count: int, seed: int, plain: bool = False) -> None:
    """Training samples of a task."""
    write(path, conversations(MODULE_TASKS[name], count, random.Random(f"{seed}/{name}"), plain))


def write_held_out(path: Path, name: str, count: int, seed: int) -> None:
    """Samples that training never sees."""
    samples = heldout_samples(MODULE_TASKS[name], count, random.Random(f"{seed}/heldout {name}"))
    write(path, map(turn, samples))


def main() -> None:
    """Parse the command line and write one file."""
    parser = argparse.ArgumentParser(description="Chat data of one task, for `heliostat finetune`.")
    parser.add_argument("task", choices=sorted(MODULE_TASKS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=12800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="samples that training never sees")
    arguments = parser.parse_args()
    make = write_held_out if arguments.held_out else write_training
    make(arguments.out, arguments.task, arguments.samples, arguments.seed)


if __name__ == "__main__":
    main()
