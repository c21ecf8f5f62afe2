"""Several ways of prompting with equally many samples each, then one vote (arXiv 2410.09780).

Each way finds other answers, right ones and wrong ones. For the same number of samples the mix is compared
with every single way: does the vote name the right answer, and is it among the samples at all?

    python examples/prompt_mix/prompt_mix.py --base-url http://127.0.0.1:8000
"""

import argparse
import asyncio
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from heliostat import Answer, AsyncClient, AsyncContext, Message
from heliostat.errors import HeliostatError, UnknownModelError

HERE = Path(__file__).parent
SYSTEM = "Give the number only."
Samples = Sequence[str]
"""What was answered, in the order drawn; empty where an answer held no number."""


def final_number(text: str) -> str:
    """The last number after the thought, without leading zeros."""
    numbers = re.findall(r"\d+", text.rpartition("</think>")[2])
    return str(int(numbers[-1])) if numbers else ""


def majority(samples: Samples) -> str:
    """The commonest answer; of equally common ones the first drawn. Empty answers have no vote."""
    counts = Counter(sample for sample in samples if sample)
    return counts.most_common(1)[0][0] if counts else ""


def mix(samples: Mapping[str, Samples], count: int) -> list[str]:
    """`count` samples, equally many of each way, round by round.

    Raises ValueError if that does not come out even.
    """
    each, left = divmod(count, len(samples))
    if left or any(len(drawn) < each for drawn in samples.values()):
        raise ValueError(f"{count} samples cannot be taken equally from {len(samples)} ways")
    return [drawn[index] for index in range(each) for drawn in samples.values()]


@dataclass
class Score:
    """Over the questions so far: where the vote was right, and where some sample was."""

    questions: int = 0
    voted: int = 0
    covered: int = 0

    def count(self, samples: Samples, truth: str) -> None:
        """One more question."""
        self.questions += 1
        self.voted += majority(samples) == truth
        self.covered += truth in samples


@dataclass(frozen=True)
class Sampler:
    """Draws samples over one context."""

    ctx: AsyncContext
    math: str
    read: str
    count: int
    temperature: float
    solved: tuple[str, str]
    """A question of the same kind, which is not asked, and its answer."""

    async def ask(self, ctx: AsyncContext, model: str, question: str, thinks: bool = False) -> Answer:
        return await ctx.ask(
            model,
            question,
            n=self.count,
            temperature=self.temperature,
            max_tokens=48,
            chat_template_kwargs={"enable_thinking": thinks},
        )

    async def direct(self, one: str, two: str) -> Samples:
        """The question and nothing else."""
        return numbers(await self.ask(self.ctx, self.math, together(one, two)))

    async def think(self, one: str, two: str) -> Samples:
        """With a thought before the answer."""
        return numbers(await self.ask(self.ctx, self.math, together(one, two), thinks=True))

    async def example(self, one: str, two: str) -> Samples:
        """After an example that was solved by hand."""
        shown = self.ctx.fork()
        question, answer = self.solved
        shown.add(Message("user", question), Message("assistant", answer))
        return numbers(await self.ask(shown, self.math, together(one, two)))

    async def parts(self, one: str, two: str) -> Samples:
        """From the least to the most (arXiv 2205.10625): each reading for itself, then their sum."""
        reads = (self.ask(self.ctx, self.read, f"What is the {thing} at?") for thing in (one, two))
        first, second = (numbers(answer) for answer in await asyncio.gather(*reads))
        sums = [self.add(left, right) for left, right in zip(first, second, strict=True)]
        return await asyncio.gather(*sums)

    async def add(self, left: str, right: str) -> str:
        if not left or not right:
            return ""
        question = f"What is {left:0>2}+{right:0>2}?"
        answer = await self.ctx.ask(self.math, question, temperature=self.temperature, max_tokens=8)
        return final_number(answer.text)


def together(one: str, two: str) -> str:
    return f"What are the {one} and the {two} together?"


def numbers(answer: Answer) -> list[str]:
    """Of all samples; one that was cut off, in its thought perhaps, has none."""
    return ["" if each.finish_reason == "length" else final_number(each.text) for each in answer.choices]


async def run(told: argparse.Namespace) -> None:
    """Every pair of things in the document is a question; the last one is solved by hand."""
    document = told.document.read_text().strip()
    values = {thing: int(value) for thing, value in re.findall(r"(\w+): (\d+)", document)}
    if len(values) < 3:
        raise ValueError(f"{told.document}: three readings or more are wanted, as `lamp: 40`, each on a line")
    *questions, (left, right) = combinations(values, 2)
    solved = together(left, right), f"{values[left] + values[right]:03}"
    questions = questions[: told.questions]
    scores: dict[str, Score] = {}
    async with (
        AsyncClient(told.base_url) as client,
        client.context(system=SYSTEM, documents=[document]) as ctx,
    ):
        sampler = Sampler(ctx, told.math, told.read, told.samples, told.temperature, solved)
        ways: dict[str, Callable[[str, str], Awaitable[Samples]]] = {
            "direct": sampler.direct,
            "think": sampler.think,
            "example": sampler.example,
            "parts": sampler.parts,
        }
        for one, two in questions:
            drawn = await asyncio.gather(*(way(one, two) for way in ways.values()))
            samples = dict(zip(ways, drawn, strict=True))
            truth = str(values[one] + values[two])
            for name, found in {**samples, "mix": mix(samples, told.samples)}.items():
                scores.setdefault(name, Score()).count(found, truth)
    print(f"{len(questions)} questions, {told.samples} samples each at temperature {told.temperature}")
    for name, score in scores.items():
        print(f"  {name:8} vote right {score.voted:2}, right answer among the samples {score.covered:2}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Mixes ways of prompting, with equal samples each.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--math", default="math", help="the model that answers")
    parser.add_argument("--read", default="read", help="the model that reads, for the way `parts`")
    parser.add_argument("--samples", type=int, default=8, help="a multiple of 4")
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--document", type=Path, default=HERE / "readings.txt")
    told = parser.parse_args()
    if told.samples % 4:
        parser.error("--samples must be a multiple of 4, the number of ways")
    try:
        asyncio.run(run(told))
    except UnknownModelError as error:
        sys.exit(f"{error} (name yours with --math and --read, or serve examples/agents/cluster.yaml)")
    except (HeliostatError, OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
