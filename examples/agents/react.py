"""A ReAct agent (arXiv 2210.03629) made of four specialists that work over one context.

`plan` thinks and names the next action, `read` and `math` carry it out, `check` looks over what was read. All
of them see the document and everything that was said; the cluster computes each part of that once.

    python examples/agents/react.py --base-url http://127.0.0.1:8000
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from crew import Specialists, ask
from words import HOUSE, MOST_STEPS, SYSTEM, TASKS, Step, next_question, parse_reading, parse_step, verdict

from heliostat import AsyncClient, AsyncContext, Hints
from heliostat.errors import HeliostatError, UnknownModelError


@dataclass(frozen=True)
class Outcome:
    """The answer (empty: the agent gave up) and what was said on the way there."""

    task: str
    answer: str
    log: tuple[str, ...]


async def act(ctx: AsyncContext, who: Specialists, step: Step) -> str:
    """Carry out a step. Returns what was observed."""
    if step.action == "add":
        answer = await ask(ctx, who.math, f"What is {step.argument}?")
        return answer.text
    answer = await ask(ctx, who.read, f"What is the {step.argument} at?")
    value = parse_reading(answer.text)
    if value == "none":
        return answer.text
    check = await ask(ctx, who.check, f"Is the {step.argument} at {value}?", thinks=True)
    return f"{answer.text} ({verdict(check.text)})"


async def solve(ctx: AsyncContext, who: Specialists, task: str, most_steps: int = MOST_STEPS) -> Outcome:
    """Think, act, observe, until the planner finishes or there were too many steps."""
    log: list[str] = []
    for _ in range(most_steps):
        said = await ask(ctx, who.plan, next_question(task))
        step = parse_step(said.text)
        if step is None:
            log.append(f"no step: {said.text!r}")
            break
        log.append(f"{step.thought} -> {step.action} {step.argument}")
        if step.action == "finish":
            return Outcome(task, step.argument, tuple(log))
        log[-1] += f" -> {await act(ctx, who, step)}"
    return Outcome(task, "", tuple(log))


async def run(base_url: str, who: Specialists, document: str) -> None:
    """All tasks at once, each in a fork of the context, so that the document is shared by all."""
    async with (
        AsyncClient(base_url) as client,
        client.context(system=SYSTEM, documents=[document], hints=Hints(expected_tokens=12)) as ctx,
    ):
        forks = [ctx.fork() for _ in TASKS]
        outcomes = await asyncio.gather(
            *(solve(fork, who, task) for fork, task in zip(forks, TASKS, strict=True))
        )
    for outcome in outcomes:
        print(f"{outcome.task}: {outcome.answer or 'gave up'}")
        print("\n".join(f"  {line}" for line in outcome.log))
    used = [fork.usage for fork in forks]
    prompts, cached = sum(each.prompt_tokens for each in used), sum(each.cached_tokens for each in used)
    brought = sum(each.cross_model_tokens for each in used)
    print(
        f"{sum(each.requests for each in used)} requests, {prompts} prompt tokens, {cached} of them cached,"
    )
    print(f"{brought} of these brought by another model")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="A ReAct agent with four specialists over one context.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    for part, name in vars(Specialists()).items():
        parser.add_argument(f"--{part}", default=name, metavar="MODEL")
    parser.add_argument("--document", type=Path, default=HOUSE)
    told = parser.parse_args()
    who = Specialists(told.plan, told.read, told.math, told.check)
    try:
        asyncio.run(run(told.base_url, who, told.document.read_text().strip()))
    except UnknownModelError as error:
        sys.exit(f"{error} (name yours with --plan, --read …, or serve examples/agents/cluster.yaml)")
    except (HeliostatError, OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
