"""Four specialists over one context, on shared and dedicated pools. `python -m benchmarks.agent_context`

An agent reads a document and asks all four specialists about it at once, through the SDK's `context`; their
answers become part of the context, and it asks again, for three turns. Two agents work at a time. Two
comparisons, each in a cluster of its own that holds both sides, asked in turn, in another order every round:

    quickstart  the pools of examples/quickstart: base and spell share a prompt's KV, home and mirror do not
    icarus      the base and three ICaRus adapters: all four read one KV cache

    dedicated   (the peer) the same modules, each model with a prefill and a decode replica of its own

Both sides do the same work: prompts and answers are of the same lengths, and before anything is measured
every specialist answers with the same tokens on both. Figures are medians over the rounds, ratios the medians
of each round's ratio. TTFT is that of one question, from when it was asked.

What this cannot show on one CPU machine: a dedicated replica that waits hands its core to the others, and the
model is so small that computing a prompt again costs little beside what a request costs anyway. The tokens
that are prefilled are what carries over to a GPU.
"""

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from rich.console import Console

from benchmarks.load import random_letters
from benchmarks.measure import Side
from benchmarks.report import RESULTS, Metric, make_report, render, write_json
from benchmarks.server import running_cluster
from benchmarks.sharing import TABLE_WIDTH, on_sigterm, positive
from cluster.percentiles import percentile
from heliostat import AsyncClient, AsyncContext
from heliostat.errors import HeliostatError

SPECS = Path(__file__).resolve().parent / "specs"
WAYS = ("quickstart", "icarus")
MODELS = ("base", "home", "mirror", "spell")
DEDICATED = "dedicated"

CONTEXT_CHARACTERS = 1000
QUESTION_CHARACTERS = 16
ANSWER_TOKENS = 16
TURNS = 3
AGENTS_AT_A_TIME = 2

log = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the agents of one side saw in one round; tokens are sums over all of them."""

    agents: int
    agent_ms: tuple[float, ...]
    ttft_ms: tuple[float, ...]
    prompt_tokens: int
    cached_tokens: int
    cross_model_tokens: int
    saved_ms: float

    @property
    def prefilled(self) -> float:
        """Prompt tokens that were computed, per agent."""
        return (self.prompt_tokens - self.cached_tokens) / self.agents


class Figure(NamedTuple):
    """How a metric is read off a sample; with a `goal`, so is its ratio to the peer's."""

    key: str
    unit: str
    better: Literal["higher", "lower"]
    read: Callable[[Sample], float]
    goal: float | None = None


def figures(way: str) -> tuple[Figure, ...]:
    """Of four contexts one is prefilled with ICaRus, three in the quickstart; questions are short."""
    return (
        Figure(
            "prefilled_per_agent",
            "tokens",
            "lower",
            lambda s: s.prefilled,
            {"quickstart": 0.8, "icarus": 0.4}[way],
        ),
        Figure("ttft_p50", "ms", "lower", lambda s: percentile(s.ttft_ms, 50), 1.0),
        Figure("ttft_p95", "ms", "lower", lambda s: percentile(s.ttft_ms, 95), 1.0),
        Figure("agent_p50", "ms", "lower", lambda s: percentile(s.agent_ms, 50), 1.0),
        Figure("hit_ratio", "of prompts", "higher", lambda s: s.cached_tokens / s.prompt_tokens),
        Figure("cross_model", "of prompts", "higher", lambda s: s.cross_model_tokens / s.prompt_tokens),
        Figure("saved_per_agent", "ms", "higher", lambda s: s.saved_ms / s.agents),
    )


def sides(way: str) -> tuple[Side, Side]:
    """The way, and the dedicated pools in the same cluster."""
    return Side(way, MODELS), Side(DEDICATED, tuple(f"{model}-alone" for model in MODELS))


async def run_agents(url: str, side: Side, count: int, seed: str) -> Sample:
    """`count` agents, `AGENTS_AT_A_TIME` of them at a time. Raises HeliostatError."""
    numbers = iter(range(count))
    agent_ms: list[float] = []
    ttft_ms: list[float] = []
    contexts: list[AsyncContext] = []

    async def one_after_the_other(client: AsyncClient) -> None:
        for number in numbers:
            # Both sides share replicas that stand alone anyway: what one has asked, the other must not find.
            rng = random.Random(f"{seed} {side.name} {number}")
            context = client.context(documents=[random_letters(rng, CONTEXT_CHARACTERS)])
            contexts.append(context)
            start_s = time.perf_counter()
            ttft_ms.extend(await _agent(context, side, rng))
            agent_ms.append((time.perf_counter() - start_s) * 1000)

    async with AsyncClient(url) as client, asyncio.TaskGroup() as group:
        for _ in range(AGENTS_AT_A_TIME):
            group.create_task(one_after_the_other(client))
    used = [context.usage for context in contexts]
    return Sample(
        count,
        tuple(agent_ms),
        tuple(ttft_ms),
        sum(each.prompt_tokens for each in used),
        sum(each.cached_tokens for each in used),
        sum(each.cross_model_tokens for each in used),
        sum(each.saved_ms for each in used),
    )


async def _agent(context: AsyncContext, side: Side, rng: random.Random) -> list[float]:
    """All turns of one agent; the TTFT of each of its questions, in ms."""
    ttft_ms: list[float] = []
    for _ in range(TURNS):
        asked = [(model, random_letters(rng, QUESTION_CHARACTERS)) for model in side.models]
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(_ask(context, model, question)) for model, question in asked]
        ttft_ms += [answer.result() for answer in answers]
        # As long as the real answers, so that both sides go on with prompts of the same lengths.
        context.add(random_letters(rng, len(asked) * ANSWER_TOKENS))
    return ttft_ms


async def _ask(context: AsyncContext, model: str, question: str) -> float:
    asked_s = time.perf_counter()
    async with context.stream_ask(
        model, question, temperature=0, max_tokens=ANSWER_TOKENS, extra_body={"ignore_eos": True}
    ) as stream:
        first_s = 0.0
        async for piece in stream:
            if not first_s and piece.text:
                first_s = time.perf_counter()
    if stream.answer.usage.output_tokens != ANSWER_TOKENS:
        raise HeliostatError(f"model {model}: {stream.answer.usage.output_tokens} tokens came")
    return ((first_s or time.perf_counter()) - asked_s) * 1000


async def check_equal_answers(url: str, way: str) -> None:
    """Each specialist says the same on both sides. Raises HeliostatError: they would not do the same work."""
    rng = random.Random("equal answers")
    shared, dedicated = sides(way)
    document = random_letters(rng, CONTEXT_CHARACTERS // 4)
    async with AsyncClient(url) as client:
        for pair in zip(shared.models, dedicated.models, strict=True):
            context = client.context(documents=[document])
            question = random_letters(rng, QUESTION_CHARACTERS)
            first, second = [
                await context.ask(model, question, temperature=0, max_tokens=ANSWER_TOKENS) for model in pair
            ]
            if first.text != second.text:
                raise HeliostatError(f"{pair[0]} answers {first.text!r}, {pair[1]} {second.text!r}")


def compare(way: str, rounds: int, agents: int) -> dict[str, Metric]:
    """Check, warm up and measure one way beside dedicated pools. Raises HeliostatError."""
    with running_cluster(SPECS / f"agent_{way}.yaml") as url:
        asyncio.run(check_equal_answers(url, way))
        log.print(f"{way}: both sides answer with the same tokens")
        pairs = []
        for side in sides(way):
            asyncio.run(run_agents(url, side, AGENTS_AT_A_TIME, "warm-up"))
        for number in range(rounds):
            samples: dict[str, Sample] = {}
            for side in sides(way) if number % 2 else reversed(sides(way)):
                sample = asyncio.run(run_agents(url, side, agents, f"round {number}"))
                samples[side.name] = sample
                log.print(
                    f"{way} round {number + 1}/{rounds} {side.name:<10} "
                    f"agent p50 {percentile(sample.agent_ms, 50):7.0f} ms  "
                    f"TTFT p50 {percentile(sample.ttft_ms, 50):6.1f} ms  "
                    f"{sample.prefilled:6.0f} tokens prefilled per agent"
                )
            pairs.append((samples[way], samples[DEDICATED]))
    return summarize(way, pairs)


def summarize(way: str, pairs: Sequence[tuple[Sample, Sample]]) -> dict[str, Metric]:
    """Medians of the way beside those of dedicated pools, and medians of each round's ratio."""
    metrics: dict[str, Metric] = {}
    for figure in figures(way):
        if figure.goal is not None:
            metrics[f"{way}_{figure.key}_ratio"] = Metric(
                value=_median(figure.read(ours) / figure.read(peer) for ours, peer in pairs),
                unit="ratio",
                goal=figure.goal,
                better=figure.better,
            )
    for figure in figures(way):
        metrics[f"{way}_{figure.key}"] = Metric(
            value=_median(figure.read(ours) for ours, _ in pairs),
            unit=figure.unit,
            better=figure.better,
            peer=_median(figure.read(peer) for _, peer in pairs),
        )
    return metrics


def _median(values: Iterator[float]) -> float:
    return round(median(values), 4)


def main(argv: Sequence[str] | None = None) -> int:
    """A missed goal is a result, not a failure."""
    top = argparse.ArgumentParser(
        prog="benchmarks.agent_context", description="Four specialists, one context."
    )
    top.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS, help="to share (all)")
    top.add_argument("--rounds", type=positive, default=5, help="per way (%(default)s)")
    top.add_argument("--agents", type=positive, default=8, help="per round and side (%(default)s)")
    top.add_argument("--output", type=Path, default=RESULTS / "agent_context.json", help="JSON file to write")
    args = top.parse_args(argv)
    signal.signal(signal.SIGTERM, on_sigterm)
    metrics: dict[str, Metric] = {}
    try:
        for way in args.ways:
            metrics |= compare(way, args.rounds, args.agents)
    except HeliostatError as error:
        print(f"benchmarks.agent_context: {error}", file=sys.stderr)
        return 1
    report = make_report(args.rounds, metrics)
    write_json(report, args.output)
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
    render(report, console, title="Four specialists over one context", value="shared", peer=DEDICATED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
