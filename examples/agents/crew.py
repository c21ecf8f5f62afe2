"""The four specialists of both agents: who they are, how they are asked, and how their answers are read."""

import re
from dataclasses import dataclass

from heliostat import Answer, AsyncContext

MOST_TOKENS = 256


@dataclass(frozen=True)
class Specialists:
    """Which model has which part."""

    plan: str = "plan"
    read: str = "read"
    math: str = "math"
    check: str = "check"


def says_yes(text: str) -> bool:
    """Whether an answer says yes, after its thought if it has one."""
    return text.rpartition("</think>")[2].strip().lower().startswith("yes")


def parse_reading(text: str) -> str:
    """The value of `lamp: 40`, or `none`."""
    found = re.search(r"\d+", text)
    return found.group() if found else "none"


async def ask(ctx: AsyncContext, model: str, question: str, thinks: bool = False) -> Answer:
    """What is asked and answered stays in the context, for all that come after."""
    return await ctx.ask(
        model,
        question,
        keep=True,
        temperature=0,
        max_tokens=MOST_TOKENS,
        chat_template_kwargs={"enable_thinking": thinks},
    )
