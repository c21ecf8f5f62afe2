"""What of a request a server takes: all of them speak OpenAI's protocol, and no two the same."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, TypeVar

from heliostat.client import ChatOptions
from heliostat.errors import InvalidRequestError

Told = TypeVar("Told")
Droppable = Literal["usage", "ignore_eos", "max_tokens", "temperature"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """`usage`: a stream ends with token counts (`stream_options`). `ignore_eos`: vLLM goes on after the end.

    OpenAI's reasoning models know no `max_tokens`, but `max_completion_tokens`, and no `temperature`.
    """

    usage: bool = True
    ignore_eos: bool = False
    max_tokens: bool = True
    temperature: bool = True

    def said(self, options: ChatOptions) -> ChatOptions:
        """The same request in this dialect. `extra_body` wins, as ever."""
        told = options.copy()
        if not self.usage:
            told["stream_options"] = None
        if self.ignore_eos:
            told["extra_body"] = {"ignore_eos": True, **told.get("extra_body", {})}
        if not self.max_tokens and "max_tokens" in told:
            told["max_completion_tokens"] = told.pop("max_tokens")
        if not self.temperature:
            told.pop("temperature", None)
        return told

    def rungs(self, *droppable: Droppable) -> Iterator["Dialect"]:
        """This one, then those without some of what may be dropped; the fewest first."""
        there = [name for name in droppable if getattr(self, name)]
        for number in range(len(there) + 1):
            for dropped in combinations(there, number):
                yield replace(self, **dict.fromkeys(dropped, False))


async def first_taken(
    rungs: Iterator[Dialect],
    ask: Callable[[Dialect], Awaitable[Told]],
    may_repeat: Callable[[], bool] = lambda: True,
) -> tuple[Dialect, Told]:
    """The first dialect in which the server does not call the request wrong, and what it answered.

    Raises what it says of the first where it refuses all of them, or where asking again is no longer right.
    """
    refusal: InvalidRequestError | None = None
    for dialect in rungs:
        try:
            return dialect, await ask(dialect)
        except InvalidRequestError as error:
            refusal = refusal or error
            if not may_repeat():
                break
    assert refusal is not None, "there is a first dialect"
    raise refusal
