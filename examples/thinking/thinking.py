"""Thinking on or off, per request, of one model (the mode switch of Think-Fusion, arXiv 2601.09200).

The switch is `chat_template_kwargs`: the chat template opens a thought before the answer, or does not. No
second model is served, and both ways share the prompt's KV up to the last token.

    python examples/thinking/thinking.py --base-url http://127.0.0.1:8000
"""

import argparse
import asyncio
import re
import sys
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from heliostat import AsyncClient, AsyncContext
from heliostat.errors import HeliostatError, UnknownModelError

HERE = Path(__file__).parent
SYSTEM = "Answer with the number only."


class Thoughtful(NamedTuple):
    """An answer, and the thought that came before it."""

    thought: str
    answer: str


def split_thought(text: str, reasoning: str = "", cut: bool = False) -> Thoughtful:
    """A server with a reasoning parser tells the two apart; otherwise `</think>` does.

    A thought that was cut off before its end has no answer.
    """
    if reasoning:
        return Thoughtful(reasoning.strip(), text.strip())
    thought, end, answer = text.removeprefix("<think>").partition("</think>")
    if end or cut:
        return Thoughtful(thought.strip(), answer.strip())
    return Thoughtful("", text.strip())


def sums(document: str) -> dict[str, str]:
    """Questions about every pair of readings, with their answers in three digits. Raises ValueError."""
    values = {thing: int(value) for thing, value in re.findall(r"(\w+): (\d+)", document)}
    if len(values) < 2:
        raise ValueError("the document wants two readings or more, as `lamp: 40`, each on a line")
    return {
        f"What are the {one} and the {two} together?": f"{values[one] + values[two]:03}"
        for one, two in combinations(values, 2)
    }


def thinks(on: bool) -> dict[str, object]:
    """For `chat_template_kwargs`; the word is that of Qwen3's template, too."""
    return {"enable_thinking": on}


async def stream(ctx: AsyncContext, model: str, question: str, on: bool) -> None:
    """Print an answer piece by piece, with a bar between pieces."""
    print(f"thinking {'on' if on else 'off'}: ", end="")
    async with ctx.stream_ask(
        model, question, temperature=0, max_tokens=64, chat_template_kwargs=thinks(on)
    ) as pieces:
        async for piece in pieces:
            print(piece.text.replace("\n", "\\n"), end="|", flush=True)
        usage = pieces.answer.usage
    print(f" {usage.output_tokens} tokens")


async def run(base_url: str, model: str, document: str) -> None:
    """One question both ways, streamed; then all pairs both ways, and how often each was right."""
    questions = sums(document)
    async with AsyncClient(base_url) as client, client.context(system=SYSTEM, documents=[document]) as ctx:
        first = next(iter(questions))
        print(first)
        for on in (False, True):
            await stream(ctx, model, first, on)
        for on in (False, True):
            answers = await ctx.ask_all(
                [(model, question) for question in questions],
                temperature=0,
                max_tokens=64,
                chat_template_kwargs=thinks(on),
            )
            said = [
                split_thought(answer.text, answer.reasoning, answer.finish_reason == "length").answer
                for answer in answers
            ]
            right = sum(text == true for text, true in zip(said, questions.values(), strict=True))
            tokens = sum(answer.usage.output_tokens for answer in answers)
            print(f"thinking {'on' if on else 'off'}: {right} of {len(said)} right, {tokens} output tokens")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="One model with and without a thought before its answer.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="math")
    parser.add_argument("--document", type=Path, default=HERE / "readings.txt")
    told = parser.parse_args()
    try:
        asyncio.run(run(told.base_url, told.model, told.document.read_text().strip()))
    except UnknownModelError as error:
        sys.exit(f"{error} (name yours with --model, or serve examples/agents/cluster.yaml)")
    except (HeliostatError, OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
