"""A checklist of yes/no questions, asked of several judges about one document (CheckEval, arXiv 2403.18771).

A dimension's score is the share of its questions that are answered yes. How a judge is prompted and how its
answer becomes a number are options, after the Eval4NLP task on LLMs as metrics (arXiv 2310.19792) and a study
made for it (arXiv 2311.03754).

    python examples/checkeval/checkeval.py --scoring probability
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import exp
from pathlib import Path
from statistics import fmean

from heliostat import AsyncClient, AsyncContext, Hints, Message, TokenLogprob
from heliostat.errors import HeliostatError, UnknownModelError

HERE = Path(__file__).parent
PROMPTINGS = ("think", "plain", "guided", "demos")
SCORINGS = ("greedy", "probability", "samples")
SYSTEM = "Answer with yes or no."
GUIDELINE = "Answer with yes or no. Say yes only with a reading from the list; the last reading counts."
Votes = Mapping[str, Mapping[str, float]]
"""By judge and question: how far it says yes, 0 to 1."""


@dataclass(frozen=True)
class Checklist:
    """Questions by dimension; and some with their answers, which are shown to a judge as demonstrations."""

    dimensions: dict[str, list[str]]
    demonstrations: list[tuple[str, str]] = field(default_factory=list)

    @property
    def questions(self) -> list[str]:
        """All of them."""
        return [question for asked in self.dimensions.values() for question in asked]


def says_yes(text: str) -> float:
    """1 for yes and 0 for no, after a thought if there is one; what is neither is half of it."""
    words = text.rpartition("</think>")[2].split()
    first = words[0].strip(".,!*").lower() if words else ""
    return {"yes": 1.0, "no": 0.0}.get(first, 0.5)


def probability_of_yes(tokens: Sequence[TokenLogprob]) -> float:
    """P(yes) / (P(yes) + P(no)) where the answer was decided: at its last token that says either."""
    for token in reversed(tokens):
        if normal(token.token) not in ("yes", "no"):
            continue
        chances = {"yes": 0.0, "no": 0.0}
        for text, logprob in token.top.items():
            if normal(text) in chances:
                chances[normal(text)] += exp(logprob)
        whole = sum(chances.values())
        return chances["yes"] / whole if whole else says_yes(token.token)
    return 0.5


def normal(token: str) -> str:
    return token.strip().lower()


def scores(votes: Votes, checklist: Checklist) -> dict[str, dict[str, float]]:
    """By judge and dimension: the share of yes."""
    dimensions = checklist.dimensions.items()
    return {
        judge: {name: fmean(given[question] for question in asked) for name, asked in dimensions}
        for judge, given in votes.items()
    }


def consensus(votes: Votes, checklist: Checklist, majority: bool) -> dict[str, float]:
    """By dimension: the mean over judges, or with `majority` the share of questions to which most say yes."""
    together = {}
    for question in checklist.questions:
        given = [of_judge[question] for of_judge in votes.values()]
        together[question] = float(sum(map(side, given)) > 0) if majority else fmean(given)
    return scores({"all": together}, checklist)["all"]


def side(share: float) -> int:
    """1 for yes, -1 for no, 0 for a judge that has not made up its mind."""
    return (share > 0.5) - (share < 0.5)


def agreement(votes: Votes) -> float:
    """The share of questions on which two judges say the same, over all pairs of judges."""
    pairs = [
        side(one[question]) == side(two[question])
        for one, two in combinations(votes.values(), 2)
        for question in one
    ]
    return fmean(pairs) if pairs else 1.0


@dataclass(frozen=True)
class Way:
    """How judges are asked and scored."""

    prompting: str
    scoring: str
    samples: int


async def vote(ctx: AsyncContext, judge: str, question: str, way: Way) -> float:
    """One judge on one question."""
    thinks = {"enable_thinking": way.prompting == "think"}
    if way.scoring == "samples":
        answer = await ctx.ask(
            judge, question, n=way.samples, temperature=1.0, max_tokens=256, chat_template_kwargs=thinks
        )
        return fmean(says_yes(choice.text) for choice in answer.choices)
    answer = await ctx.ask(
        judge,
        question,
        temperature=0,
        max_tokens=256,
        logprobs=True,
        top_logprobs=5,
        chat_template_kwargs=thinks,
    )
    return probability_of_yes(answer.logprobs) if way.scoring == "probability" else says_yes(answer.text)


async def ask_judges(
    client: AsyncClient, document: str, checklist: Checklist, judges: Sequence[str], way: Way
) -> dict[str, dict[str, float]]:
    """All judges on all questions at once, over one context that is prefilled once."""
    system = GUIDELINE if way.prompting == "guided" else SYSTEM
    async with client.context(system=system, documents=[document], hints=Hints(expected_tokens=4)) as ctx:
        if way.prompting == "demos":
            for question, answer in checklist.demonstrations:
                ctx.add(Message("user", question), Message("assistant", answer))
        asked = [(judge, question) for judge in judges for question in checklist.questions]
        given = await asyncio.gather(*(vote(ctx, judge, question, way) for judge, question in asked))
        usage = ctx.usage
    print(f"{usage.requests} requests, {usage.prompt_tokens} prompt tokens, {usage.cached_tokens} cached")
    votes: dict[str, dict[str, float]] = {judge: {} for judge in judges}
    for (judge, question), share in zip(asked, given, strict=True):
        votes[judge][question] = share
    return votes


def report(votes: Votes, checklist: Checklist, majority: bool) -> str:
    """A line a question, then scores by judge, the consensus, and how far the judges agree."""
    lines = [f"{'':24} " + " ".join(f"{judge:>8}" for judge in votes)]
    for question in checklist.questions:
        lines.append(f"{question:24} " + " ".join(f"{given[question]:8.2f}" for given in votes.values()))
    by_judge = scores(votes, checklist)
    for name, together in consensus(votes, checklist, majority).items():
        each = " ".join(f"{by_judge[judge][name]:8.2f}" for judge in votes)
        lines.append(f"{name:24} {each}   all {together:.2f}")
    lines.append(f"agreement of judges: {agreement(votes):.2f}")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Several judges answer a checklist about one document.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--judges", nargs="+", default=["check", "strict", "novice"])
    parser.add_argument("--prompting", choices=PROMPTINGS, default="think")
    parser.add_argument("--scoring", choices=SCORINGS, default="greedy")
    parser.add_argument("--samples", type=int, default=8, help="answers a question with --scoring samples")
    parser.add_argument("--majority", action="store_true", help="most judges decide a question, not the mean")
    parser.add_argument("--document", type=Path, default=HERE / "report.txt")
    parser.add_argument("--checklist", type=Path, default=HERE / "checklist.json")
    told = parser.parse_args()
    way = Way(told.prompting, told.scoring, told.samples)

    async def run() -> None:
        document, checklist = (
            told.document.read_text().strip(),
            Checklist(**json.loads(told.checklist.read_text())),
        )
        async with AsyncClient(told.base_url) as client:
            votes = await ask_judges(client, document, checklist, told.judges, way)
        print(report(votes, checklist, told.majority))

    try:
        asyncio.run(run())
    except UnknownModelError as error:
        sys.exit(f"{error} (name yours with --judges, or serve examples/agents/cluster.yaml)")
    except (HeliostatError, OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
