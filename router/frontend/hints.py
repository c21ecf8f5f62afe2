"""What a client says about its request in headers, beside OpenAI's body: any server can be sent it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.errors import InvalidRequestError
from heliostat.headers import DEADLINE, EXPECTED_TOKENS, PRIORITY, REUSE, SESSION

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
    reuse = headers.get(REUSE)
    if reuse not in (None, "soon"):
        raise _malformed(REUSE, reuse, "it can be `soon`, or left out")
    return Hints(
        session=headers.get(SESSION, ""),
        deadline_s=_seconds(DEADLINE, headers.get(DEADLINE)),
        priority=_integer(PRIORITY, headers.get(PRIORITY), -INT64, INT64 - 1),
        expected_tokens=_integer(EXPECTED_TOKENS, headers.get(EXPECTED_TOKENS), 1, MAX_TOKENS) or 0,
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
