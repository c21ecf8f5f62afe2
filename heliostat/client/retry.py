"""Whether a request is sent again, and when."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite

AGAIN_STATUSES = frozenset({408, 429, 502, 503, 504})
"""Of these a later attempt may succeed: a place was missing, or somebody between did not reach the server."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt, s.

    Without Retry-After: half of `first_s` to `first_s`, each time twice that, at most `longest_s`. With it:
    what the server says, and up to `first_s` more, so that not all who were refused come back at once; if
    it says more than `patience_s`, there is no next attempt.
    """

    first_s: float = 0.5
    longest_s: float = 8.0
    patience_s: float = 60.0

    def wait_s(self, attempt: int, retry_after_s: float | None, random: Callable[[], float]) -> float | None:
        """After the attempt of that number (0: the first); None: not again. `random` gives 0 to 1."""
        if retry_after_s is not None:
            return retry_after_s + self.first_s * random() if retry_after_s <= self.patience_s else None
        longest_s: float = min(self.first_s * 2**attempt, self.longest_s)
        return longest_s * (0.5 + 0.5 * random())


DEFAULT_BACKOFF = Backoff()


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds or an HTTP date (RFC 9110, 10.2.3) as seconds from now, at least 0; None: it says nothing.

    `now_s` is Unix time.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(seconds, 0.0) if isfinite(seconds) else None
    try:
        at = parsedate_to_datetime(value)
        return max(at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now_s, 0.0)
    except (ValueError, OverflowError):
        return None
