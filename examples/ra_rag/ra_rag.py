"""Questions answered from sources that do not agree (RA-RAG, arXiv 2410.22954).

Every source is asked for itself. How far each can be trusted is estimated without labels, from how often it
agrees with the weighted majority; that majority decides again, now with better weights, until nothing moves.

    python examples/ra_rag/ra_rag.py --base-url http://127.0.0.1:8000
"""

import argparse
import asyncio
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat import AsyncClient, Hints
from heliostat.errors import HeliostatError, UnknownModelError

HERE = Path(__file__).parent
SYSTEM = "Answer from the list. Say only what is in the list, or none."
NO_ANSWER = None
Answers = Mapping[str, str | None]
"""What each source says to one question; None where it says nothing."""


@dataclass(frozen=True)
class Corpus:
    """Documents by source and house; what to ask without labels; what to ask with the true value."""

    sources: dict[str, dict[str, str]]
    unlabelled: list[dict[str, str]]
    questions: list[dict[str, str]]


@dataclass(frozen=True)
class Estimate:
    """Per source: the share of its answers that the majority shares, and the weight of its vote."""

    reliability: dict[str, float]
    weights: dict[str, float]
    rounds: int


def weighted_vote(answers: Answers, weights: Mapping[str, float]) -> str | None:
    """The answer with the most weight behind it. A weight below zero counts against an answer.

    Equal weights: the answer that sorts last, which says nothing about its truth. The order in which the
    sources happen to be listed must not decide.
    """
    votes: defaultdict[str, float] = defaultdict(float)
    for source, answer in answers.items():
        if answer is not NO_ANSWER:
            votes[answer] += weights[source]
    return max(votes, key=lambda answer: (votes[answer], answer)) if votes else NO_ANSWER


def estimate(questions: Sequence[Answers], sources: Sequence[str], rounds: int = 20) -> Estimate:
    """Reliability without labels: iterative weighted majority voting (arXiv 1411.4086), as in the source.

    With N sources, one that agrees with the majority in a share r of its answers votes with weight N r - 1:
    whoever guesses among N answers weighs nothing. Round one takes equal weights, and only questions on which
    one answer leads, because a tie would make one of its answers true by chance.
    """
    weights = dict.fromkeys(sources, 1.0)
    reliability = dict.fromkeys(sources, 0.0)
    for number in range(1, rounds + 1):
        asked = [each for each in questions if has_leader(each)] if number == 1 else questions
        truths = [weighted_vote(each, weights) for each in asked or questions]
        reliability = agreement(asked or questions, truths, sources)
        found = {source: len(sources) * share - 1 for source, share in reliability.items()}
        if found == weights:
            return Estimate(reliability, weights, number)
        weights = found
    return Estimate(reliability, weights, rounds)


def has_leader(answers: Answers) -> bool:
    """Whether one answer was given more often than any other."""
    counts = [count for _, count in Counter(a for a in answers.values() if a is not NO_ANSWER).most_common(2)]
    return len(counts) == 1 or (len(counts) == 2 and counts[0] > counts[1])


def agreement(
    questions: Sequence[Answers], truths: Sequence[str | None], sources: Sequence[str]
) -> dict[str, float]:
    """Per source, the share of its answers that are the accepted one; 0 for a source that never answered."""
    given, agreed = Counter[str](), Counter[str]()
    for answers, truth in zip(questions, truths, strict=True):
        for source, answer in answers.items():
            given[source] += answer is not NO_ANSWER
            agreed[source] += answer is not NO_ANSWER and answer == truth
    return {source: agreed[source] / given[source] if given[source] else 0.0 for source in sources}


def most_reliable(answers: Answers, weights: Mapping[str, float], kappa: int) -> Answers:
    """The kappa sources of the highest weight among those that have an answer: the relevant ones."""
    relevant = sorted((s for s, a in answers.items() if a is not NO_ANSWER), key=lambda s: -weights[s])
    return {source: answers[source] for source in relevant[:kappa]}


def read_value(text: str) -> str | None:
    """`lamp: 40` is 40; an answer without a number says that the source knows nothing."""
    found = re.search(r"\d+", text)
    return found.group() if found else NO_ANSWER


def says_yes(text: str) -> bool:
    """Whether an answer says yes, after its thought if it has one."""
    return text.rpartition("</think>")[2].strip().lower().startswith("yes")


@dataclass(frozen=True)
class Models:
    """Who reads a source, and who says whether the answer is really in it; empty: nobody."""

    read: str
    check: str


async def ask_source(client: AsyncClient, models: Models, document: str, thing: str) -> str | None:
    """One source's answer, or None where it has none or where the checker does not find it there."""
    if not document:
        return NO_ANSWER
    async with client.context(system=SYSTEM, documents=[document], hints=Hints(expected_tokens=6)) as ctx:
        answer = await ctx.ask(models.read, f"What is the {thing} at?", temperature=0, max_tokens=16)
        value = read_value(answer.text)
        if value is NO_ANSWER or not models.check:
            return value
        question = f"Is the {thing} at {value}?"
        verdict = await ctx.ask(
            models.check,
            question,
            temperature=0,
            max_tokens=256,
            chat_template_kwargs={"enable_thinking": True},
        )
        return value if says_yes(verdict.text) else NO_ANSWER


async def ask_all_sources(
    client: AsyncClient, models: Models, sources: Mapping[str, Mapping[str, str]], fact: Mapping[str, str]
) -> Answers:
    """All sources at once, each by its document of that house; one that has none says nothing."""
    documents = {name: parts.get(fact["house"], "") for name, parts in sources.items()}
    asked = [ask_source(client, models, document, fact["thing"]) for document in documents.values()]
    return dict(zip(documents, await asyncio.gather(*asked), strict=True))


async def run(base_url: str, models: Models, kappa: int, corpus: Corpus) -> None:
    """Estimate on the questions without labels, then answer the others, and print what came of it."""
    sources = corpus.sources
    async with AsyncClient(base_url) as client:
        unlabelled = [await ask_all_sources(client, models, sources, fact) for fact in corpus.unlabelled]
        found = estimate(unlabelled, list(sources))
        print(f"{len(unlabelled)} questions without labels, {found.rounds} rounds")
        for name in sorted(sources, key=lambda name: -found.weights[name]):
            print(f"  {name:10} reliability {found.reliability[name]:.2f}, weight {found.weights[name]:+.2f}")
        right = Counter[str]()
        for fact in corpus.questions:
            answers = await ask_all_sources(client, models, sources, fact)
            plain = weighted_vote(answers, dict.fromkeys(sources, 1.0))
            weighted = weighted_vote(most_reliable(answers, found.weights, kappa), found.weights)
            right["majority"] += plain == fact["value"]
            right["weighted"] += weighted == fact["value"]
            said = " ".join(answer or "--" for answer in answers.values())
            print(f"{fact['house']}, {fact['thing']}: {said}; majority {plain}, weighted {weighted}")
    count = len(corpus.questions)
    print(f"right: majority {right['majority']} of {count}, weighted {right['weighted']} of {count}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Answers from several sources, by weighted majority vote.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="read", help="reads one source")
    parser.add_argument("--checker", default="check", help="drops what is not in the source; '': none")
    parser.add_argument("--kappa", type=int, default=4, help="sources that vote, the most reliable ones")
    parser.add_argument("--corpus", type=Path, default=HERE / "corpus.json")
    told = parser.parse_args()
    try:
        corpus = Corpus(**json.loads(told.corpus.read_text()))
        asyncio.run(run(told.base_url, Models(told.model, told.checker), told.kappa, corpus))
    except UnknownModelError as error:
        sys.exit(f"{error} (name yours with --model and --checker, or serve examples/agents/cluster.yaml)")
    except (HeliostatError, OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
