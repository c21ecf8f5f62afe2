"""The four specialists of both agents, and how they are asked."""

from dataclasses import dataclass

from words import MOST_TOKENS

from heliostat import Answer, AsyncContext


@dataclass(frozen=True)
class Specialists:
    """Which model has which part."""

    plan: str = "plan"
    read: str = "read"
    math: str = "math"
    check: str = "check"


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
