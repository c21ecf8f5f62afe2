"""Reflexion (arXiv 2303.11366) with four specialists: try, evaluate, write down a lesson, try again.

`read` and `math` act, `check` evaluates, `plan` reflects. Every trial starts from the same document, which
the cluster has in its cache, with the lessons of the earlier trials in the actor's question.

    python examples/agents/reflexion.py --base-url http://127.0.0.1:8000
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crew import Specialists, ask
from words import parse_reading, says_yes

from heliostat import AsyncClient, AsyncContext, Hints
from heliostat.errors import HeliostatError, UnknownModelError

HERE = Path(__file__).parent
SYSTEM = "Answer from the list. A thing may be in the list two times; the last reading counts."
THINGS = ("lamp", "pump")


@dataclass(frozen=True)
class Trial:
    """What was read; its sum, if the evaluator was content; the lesson, if it was not."""

    readings: tuple[str, ...]
    answer: str
    lesson: str


def actor_question(thing: str, lessons: Sequence[str]) -> str:
    """The memory of earlier trials is part of what the actor is asked."""
    return " ".join([f"What is the {thing} at?", *lessons])


def remembered(lessons: Sequence[str], lesson: str, most: int = 3) -> list[str]:
    """The newest lessons, each once: the memory stays short."""
    return [*(each for each in lessons if each != lesson), lesson][-most:]


async def attempt(
    ctx: AsyncContext, who: Specialists, things: Sequence[str], lessons: Sequence[str]
) -> Trial:
    """One trial: read, evaluate each reading, reflect on the first that fails, or add up.

    What is not in the document at all teaches nothing.
    """
    values = []
    for thing in things:
        answer = await ask(ctx, who.read, actor_question(thing, lessons))
        values.append(parse_reading(answer.text))
        if values[-1] == "none":
            return Trial(tuple(values), "", "")
        question = f"Is the {thing} at {values[-1]}?"
        verdict = await ask(ctx, who.check, question, thinks=True)
        if not says_yes(verdict.text):
            failed = f"The {thing} is not at {values[-1]}. What is the lesson?"
            lesson = await ask(ctx, who.plan, failed)
            return Trial(tuple(values), "", lesson.text.strip())
    answer = await ask(ctx, who.math, f"What is {'+'.join(values)}?")
    return Trial(tuple(values), answer.text.strip(), "")


async def run(base_url: str, who: Specialists, document: str, things: Sequence[str], trials: int) -> None:
    """Trials until one has an answer."""
    lessons: list[str] = []
    async with (
        AsyncClient(base_url) as client,
        client.context(system=SYSTEM, documents=[document], hints=Hints(expected_tokens=8)) as ctx,
    ):
        for number in range(1, trials + 1):
            fork = ctx.fork()
            trial = await attempt(fork, who, things, lessons)
            used = fork.usage
            said = trial.answer or trial.lesson or "nothing to learn from that"
            print(f"trial {number}: read {', '.join(trial.readings)}; {said}")
            print(
                f"  {used.requests} requests, {used.prompt_tokens} prompt tokens, {used.cached_tokens} cached"
            )
            if trial.answer:
                print(f"{' and '.join(things)} together: {trial.answer}")
                return
            if not trial.lesson:
                break
            lessons = remembered(lessons, trial.lesson)
    print("no answer")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="A Reflexion agent with four specialists over one context.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    for part, name in vars(Specialists()).items():
        parser.add_argument(f"--{part}", default=name, metavar="MODEL")
    parser.add_argument("--document", type=Path, default=HERE / "house_again.txt")
    parser.add_argument("--things", nargs="+", default=THINGS)
    parser.add_argument("--trials", type=int, default=4)
    told = parser.parse_args()
    who = Specialists(told.plan, told.read, told.math, told.check)
    try:
        document = told.document.read_text().strip()
        asyncio.run(run(told.base_url, who, document, told.things, told.trials))
    except UnknownModelError as error:
        sys.exit(f"{error} (name yours with --read, --math …, or serve examples/agents/cluster.yaml)")
    except (HeliostatError, OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
