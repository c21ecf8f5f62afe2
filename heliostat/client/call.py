"""One call, from its first attempt to its answer or its error: every decision, and no I/O.

Until there is an answer, a client takes the headers of the next attempt from `begin`, sends it for at most
`patience_s`, and asks `refused` or `broke` how long to wait before the next: they raise the error if there is
none.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import random

import httpx

from heliostat import headers
from heliostat.client.failures import error_of
from heliostat.client.requests import Request
from heliostat.client.retry import AGAIN_STATUSES, DEFAULT_BACKOFF, Backoff, parse_retry_after
from heliostat.errors import (
    HeliostatError,
    InvalidRequestError,
    TimedOutError,
    UnexpectedAnswerError,
    UnreachableError,
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What all calls of a client have in common. Time and randomness are parameters.

    `clock` is monotonic, `wall_clock` is Unix time (for Retry-After as a date), `random` gives 0 to 1.
    """

    base_url: str
    timeout_s: float = 60.0
    max_retries: int = 2
    deadline_s: float | None = None
    backoff: Backoff = DEFAULT_BACKOFF
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    random: Callable[[], float] = random


class Call:
    """The deadline runs from here on."""

    def __init__(self, request: Request, rules: Rules) -> None:
        self.request = request
        self.where = rules.base_url + request.path
        self._rules = rules
        self._attempt = 0
        hinted_s = request.hints.deadline_s
        self._deadline_s = rules.deadline_s if hinted_s is None else hinted_s
        self._started_s = rules.clock()
        self._timeout_s = rules.timeout_s if request.timeout_s is None else request.timeout_s
        self._at_deadline = False

    def begin(self) -> Mapping[str, str]:
        """The headers of the next attempt. Raises TimedOutError when the deadline is over."""
        left_s = self.left_s()
        if left_s is None:
            return self.request.headers
        if left_s <= 0:
            raise self.expired()
        return {**self.request.headers, headers.DEADLINE: f"{left_s:.3f}"}

    def left_s(self) -> float | None:
        """Of the deadline; None: there is none."""
        if self._deadline_s is None:
            return None
        return self._started_s + self._deadline_s - self._rules.clock()

    def patience_s(self) -> float:
        """How long the next connect, write or read may take: the timeout, or what is left of the deadline."""
        left_s = self.left_s()
        self._at_deadline = left_s is not None and left_s < self._timeout_s
        return max(left_s or 0.0, 0.001) if self._at_deadline else self._timeout_s

    @property
    def timeout_s(self) -> float:
        """Between two reads of an answer that has begun."""
        return self._timeout_s

    def expired(self) -> TimedOutError:
        """The deadline is over, and no answer has begun."""
        return TimedOutError(
            f"{self.where}: the deadline of {self._deadline_s} s is over before an answer began"
            f"{self._attempts()}"
        )

    def refused(self, status: int, answered: Mapping[str, str], body: bytes) -> float:
        """Seconds until the next attempt. Raises what the answer stands for, if there is none."""
        retry_after_s = parse_retry_after(answered.get("retry-after"), self._rules.wall_clock())
        error = error_of(status, body, retry_after_s, self.where)
        return self._again_in(error, status in AGAIN_STATUSES, retry_after_s)

    def broke(self, error: httpx.RequestError) -> float:
        """The connection broke before the answer began; as `refused`."""
        if self._at_deadline and isinstance(error, httpx.TimeoutException):
            raise self.expired() from error
        found, again = self._told(error)
        try:
            return self._again_in(found, again, None)
        except HeliostatError as told:
            raise told from error

    def _told(self, error: httpx.RequestError) -> tuple[HeliostatError, bool]:
        """What broke, and whether it may be tried again."""
        what = str(error) or type(error).__name__
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            # The server may be at work on it still: asking again would double that.
            return TimedOutError(f"{self.where}: nothing came for {self._timeout_s} s; see timeout_s"), False
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return UnreachableError(f"{self.where}: no connection: {what}{self._attempts()}"), True
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            return InvalidRequestError(f"{self.where}: the request cannot be sent: {what}"), False
        if isinstance(error, httpx.DecodingError):
            return UnexpectedAnswerError(f"{self.where}: the answer cannot be unpacked: {what}"), False
        broken = f"{self.where}: the connection broke before the answer was there: {what}{self._attempts()}"
        # HAProxy may close a connection that was kept alive just as a request is sent over it.
        return UnreachableError(broken), isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)

    def _again_in(self, error: HeliostatError, may: bool, retry_after_s: float | None) -> float:
        """Raises the error if there is no next attempt, or none within the deadline."""
        if not may or self._attempt >= self._rules.max_retries:
            raise error
        wait_s = self._rules.backoff.wait_s(self._attempt, retry_after_s, self._rules.random)
        left_s = self.left_s()
        if wait_s is None or (left_s is not None and wait_s >= left_s):
            raise error
        self._attempt += 1
        return wait_s

    def _attempts(self) -> str:
        return f" ({self._attempt + 1} attempts)" if self._attempt else ""


def broke_off(error: httpx.RequestError, timeout_s: float) -> str:
    """Why a stream that has begun broke."""
    if isinstance(error, httpx.TimeoutException):
        return f"nothing came for {timeout_s} s; see timeout_s"
    return f"the connection broke: {str(error) or type(error).__name__}"
