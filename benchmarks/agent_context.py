"""Four specialists over one context, on shared and dedicated pools and on engines of their own.

    python -m benchmarks.agent_context

An agent reads a document and asks all four specialists about it at once, through the SDK's `context`; their
answers become part of the context, and it asks again, for three turns. Two agents work at a time. Two ways to
share, each in a cluster of its own that holds its dedicated peer too; the two are asked in turn, in another
order every round:

    quickstart  the pools of examples/quickstart: base and spell share a prompt's KV, home and mirror do not
    icarus      the base and three ICaRus adapters: all four read one KV cache

    dedicated   (the peer) the same modules, each model with a prefill and a decode replica of its own
    engines     four servers of plain vLLM, one for each model: no handoff, and prefix caching as ever; asked
                by themselves before the others, since twelve engines want more than 24 GiB

All sides do the same work: prompts and answers are of the same lengths, and before anything is measured
every specialist answers with the same tokens on shared and on dedicated pools. Plain engines serve ordinary
fine-tunes, which have other weights; here all four have the base's. Figures are medians over the rounds,
ratios the medians of each round's ratio. TTFT is that of one question, from when it was asked.

What this cannot show on one CPU machine: a replica that waits hands its core to the others, each engine's
step costs Python, so that eight engines are slower than two for that alone, and the model is so small that
computing a prompt again costs little beside what a request costs anyway. The tokens that are prefilled are
what carries over to a GPU.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from rich.console import Console

from benchmarks.agent_context_load import (
    AGENTS_AT_A_TIME,
    ANSWER_TOKENS,
    CONTEXT_CHARACTERS,
    QUESTION_CHARACTERS,
    Sample,
    Side,
    run_agents,
)
from benchmarks.load import random_letters
from benchmarks.plain_vllm import running_vllm
from benchmarks.report import RESULTS, Metric, make_report, render, write_json
from benchmarks.server import running_cluster
from benchmarks.sharing import TABLE_WIDTH, on_sigterm, positive
from cluster.percentiles import percentile
from heliostat import AsyncClient
from heliostat.errors import HeliostatError
from heliostat.spec import Pool

SPECS = Path(__file__).resolve().parent / "specs"
WAYS = ("quickstart", "icarus")
MODELS = ("base", "home", "mirror", "spell")
DEDICATED = "dedicated"
ENGINES = "engines"
BASE = Path(__file__).resolve().parents[1] / "examples" / "quickstart" / "weights" / "base"
ENGINE_KV_BYTES = 2**29
"""What a prefill and a decode replica of the specs have together."""

log = Console(stderr=True, highlight=False, soft_wrap=True)


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


def sides(way: str, cluster_url: str) -> tuple[Side, Side]:
    """The way, and the dedicated pools in the same cluster."""
    return (
        Side(way, dict.fromkeys(MODELS, cluster_url)),
        Side(DEDICATED, dict.fromkeys((f"{model}-alone" for model in MODELS), cluster_url)),
    )


@contextmanager
def running_engines() -> Iterator[dict[str, str]]:
    """A server of plain vLLM for each model; their URLs by model. Raises HeliostatError."""
    flags = ["--model", str(BASE), "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
    flags += ["--block-size", "32", "--kv-cache-memory-bytes", str(ENGINE_KV_BYTES)]
    flags += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    pool = Pool(weights=str(BASE), gpus=0, cpus=0.25)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        urls = {}
        for model in MODELS:
            log_file = Path(folder) / f"{model}.log"
            named = [*flags, "--served-model-name", model]
            urls[model] = stack.enter_context(running_vllm(named, pool, log_file)).url
            log.print(f"vLLM for {model} is ready")
        yield urls


async def check_equal_answers(shared: Side, dedicated: Side) -> None:
    """Each specialist says the same on both sides. Raises HeliostatError: they would not do the same work."""
    rng = random.Random("equal answers")
    document = random_letters(rng, CONTEXT_CHARACTERS // 4)
    for pair in zip(shared.models.items(), dedicated.models.items(), strict=True):
        question = random_letters(rng, QUESTION_CHARACTERS)
        said = []
        for model, url in pair:
            async with AsyncClient(url) as client:
                context = client.context(documents=[document])
                answer = await context.ask(model, question, temperature=0, max_tokens=ANSWER_TOKENS)
            said.append(answer.text)
        if said[0] != said[1]:
            raise HeliostatError(f"{pair[0][0]} answers {said[0]!r}, {pair[1][0]} {said[1]!r}")


Round = Mapping[str, Sample]
"""By side."""


def measure(side: Side, number: int, agents: int) -> Sample:
    """One round of one side. Raises HeliostatError."""
    sample = asyncio.run(run_agents(side, agents, f"round {number}"))
    log.print(
        f"round {number + 1} {side.name:<10} "
        f"agent p50 {percentile(sample.agent_ms, 50):7.0f} ms  "
        f"TTFT p50 {percentile(sample.ttft_ms, 50):6.1f} ms  "
        f"{sample.prefilled:6.0f} tokens prefilled per agent"
    )
    return sample


def measure_engines(rounds: int, agents: int) -> list[Sample]:
    """Plain engines by themselves. Raises HeliostatError."""
    with running_engines() as urls:
        side = Side(ENGINES, urls)
        asyncio.run(run_agents(side, AGENTS_AT_A_TIME, "warm-up"))
        return [measure(side, number, agents) for number in range(rounds)]


def compare(way: str, engines: Sequence[Sample], agents: int) -> dict[str, Metric]:
    """Check, warm up and measure one way beside its peer, in as many rounds as `engines` were measured in.

    Raises HeliostatError.
    """
    with running_cluster(SPECS / f"agent_{way}.yaml") as url:
        shared, dedicated = sides(way, url)
        asyncio.run(check_equal_answers(shared, dedicated))
        log.print(f"{way}: shared and dedicated pools answer with the same tokens")
        for side in (shared, dedicated):
            asyncio.run(run_agents(side, AGENTS_AT_A_TIME, "warm-up"))
        measured: list[Round] = []
        for number, of_engines in enumerate(engines):
            order = (shared, dedicated) if number % 2 else (dedicated, shared)
            measured.append(
                {ENGINES: of_engines, **{side.name: measure(side, number, agents) for side in order}}
            )
    return summarize(way, measured)


def summarize(way: str, rounds: Sequence[Round]) -> dict[str, Metric]:
    """Medians of the way, those of dedicated pools beside it, those of plain engines by themselves; and
    medians of each round's ratio to either."""
    metrics: dict[str, Metric] = {}
    for peer, suffix in ((DEDICATED, "ratio"), (ENGINES, "to_engines")):
        for figure in figures(way):
            if figure.goal is not None:
                metrics[f"{way}_{figure.key}_{suffix}"] = Metric(
                    value=_median(figure.read(each[way]) / figure.read(each[peer]) for each in rounds),
                    unit="ratio",
                    goal=figure.goal,
                    better=figure.better,
                )
    for figure in figures(way):
        metrics[f"{way}_{figure.key}"] = Metric(
            value=_median(figure.read(each[way]) for each in rounds),
            unit=figure.unit,
            better=figure.better,
            peer=_median(figure.read(each[DEDICATED]) for each in rounds),
        )
        if figure.goal is not None:
            metrics[f"{way}_engines_{figure.key}"] = Metric(
                value=_median(figure.read(each[ENGINES]) for each in rounds),
                unit=figure.unit,
                better=figure.better,
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
        engines = measure_engines(args.rounds, args.agents)
        for way in args.ways:
            metrics |= compare(way, engines, args.agents)
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
