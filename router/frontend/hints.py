"""What a client says about its request in headers, beside OpenAI's body: any server can be sent it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.errors import InvalidRequestError

SESSION_HEADER = "x-heliostat-session"
"""A name for the conversation, or for the context that several models are asked about."""

DEADLINE_HEADER = "x-heliostat-deadline"
"""Seconds that the client waits for a place at most; then it gets a 429."""

PRIORITY_HEADER = "x-heliostat-priority"
"""As the body's `priority` (vLLM's field), which wins where both are given: lower goes first."""

EXPECTED_TOKENS_HEADER = "x-heliostat-expected-tokens"
"""Output tokens that the client expects; admission and placement reckon with them."""

REUSE_HEADER = "x-heliostat-reuse"
"""`soon`: the beginning of this prompt will be asked again soon."""

INT64 = 2**63
MAX_TOKENS = 10**9
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Hints:
    """What the headers say; `priority` None and `expected_tokens` 0 are not given."""

    session: str = ""
    deadline_s: float | None = None
    priority: int | None = None
    expected_tokens: int = 0
    reuse_soon: bool = False


NO_HINTS = Hints()


def read_hints(headers: Mapping[str, str]) -> Hints:
    """The hints in a request's headers. Raises InvalidRequestError for one that is malformed."""
    reuse = headers.get(REUSE_HEADER)
    if reuse not in (None, "soon"):
        raise _malformed(REUSE_HEADER, reuse, "it can be `soon`, or left out")
    return Hints(
        session=headers.get(SESSION_HEADER, ""),
        deadline_s=_seconds(DEADLINE_HEADER, headers.get(DEADLINE_HEADER)),
        priority=_integer(PRIORITY_HEADER, headers.get(PRIORITY_HEADER), -INT64, INT64 - 1),
        expected_tokens=_integer(EXPECTED_TOKENS_HEADER, headers.get(EXPECTED_TOKENS_HEADER), 1, MAX_TOKENS)
        or 0,
        reuse_soon=reuse is not None,
    )


def _seconds(header: str, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise _malformed(header, value, "give it seconds, 0 or more, like 2.5")
    return seconds


def _integer(header: str, value: str | None, least: int, most: int) -> int | None:
    if value is None:
        return None
    number = int(value) if _INTEGER.fullmatch(value) else None
    if number is None or not least <= number <= most:
        raise _malformed(header, value, f"give it an integer from {least} to {most}")
    return number


def _malformed(header: str, value: str | None, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"{header} is {value!r}; {remedy}")
