"""One call, from its first attempt to its answer or its error: every decision, and no I/O.

Until an answer begins, a client takes the headers of the next attempt from `begin`, gives it `patience_s`,
and asks `refused`, `broke` or `failed` how long to wait before the next: they raise the error if there is
none. A stream has begun with its first piece; any other answer when all of it is here.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import random

import httpx

from heliostat import headers
from heliostat.client.failures import error_of
from heliostat.client.patience import SHORTEST_S
from heliostat.client.requests import Request
from heliostat.client.retry import AGAIN_STATUSES, DEFAULT_BACKOFF, Backoff, parse_retry_after
from heliostat.client.settings import seconds
from heliostat.errors import (
    HeliostatError,
    InvalidRequestError,
    RequestError,
    StreamBrokenError,
    TimedOutError,
    UnexpectedAnswerError,
    UnreachableError,
)

LAST_READ_S = 0.5
"""For a stream's connection to end after its last event: most do at once, and can be used again."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What all calls of a client have in common. Time and randomness are parameters.

    `clock` is monotonic, `wall_clock` is Unix time (for Retry-After as a date), `random` gives 0 to 1.
    """

    base_url: str
    timeout_s: float = 60.0
    answer_timeout_s: float = 600.0
    max_retries: int = 2
    deadline_s: float | None = None
    backoff: Backoff = DEFAULT_BACKOFF
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    random: Callable[[], float] = random

    def __post_init__(self) -> None:
        """Raises HeliostatError for a time that none can keep to."""
        seconds("timeout_s", self.timeout_s)
        seconds("answer_timeout_s", self.answer_timeout_s)
        if self.deadline_s is not None:
            seconds("deadline_s", self.deadline_s)


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
        self.timeout_s = rules.timeout_s if request.timeout_s is None else request.timeout_s
        # What is only looked up comes at once; a model may take its time.
        self._answer = "answer_timeout_s" if request.body else "timeout_s"
        self._answer_s = rules.answer_timeout_s if request.body else self.timeout_s
        self._attempted_s = self._started_s
        self._no_patience = False
        self._next_read_s: float | None = None

    def begin(self) -> Mapping[str, str]:
        """The headers of the next attempt. Raises TimedOutError when the deadline is over."""
        self._attempted_s = self._rules.clock()
        self._next_read_s = None
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
        """How long an answer may still take to begin: until the deadline, or as long as any may take."""
        left_s = self.left_s()
        return self._attempted_s + self._answer_s - self._rules.clock() if left_s is None else left_s

    def step_s(self) -> float:
        """How long connecting, or sending, may take."""
        patience_s = self.patience_s()
        self._no_patience = patience_s < self.timeout_s
        return max(patience_s, SHORTEST_S) if self._no_patience else self.timeout_s

    def read_s(self) -> float:
        """How long the next read may take."""
        return self.patience_s() if self._next_read_s is None else self._next_read_s

    def began(self) -> None:
        """The answer is a stream, and its first piece is here: no attempt follows any more."""
        self._next_read_s = self.timeout_s

    def ended(self) -> None:
        """The stream's last event is here."""
        self._next_read_s = LAST_READ_S

    def expired(self) -> TimedOutError:
        """No answer has begun, and it is too late for one."""
        if self._deadline_s is None:
            why = f"no answer began within {self._answer_s} s; see {self._answer}"
        else:
            why = f"the deadline of {self._deadline_s} s is over before an answer began"
        return TimedOutError(f"{self.where}: {why}{self._attempts()}")

    def refused(self, status: int, answered: Mapping[str, str], body: bytes) -> float:
        """Seconds until the next attempt. Raises what the answer stands for, if there is none."""
        retry_after_s = parse_retry_after(answered.get("retry-after"), self._rules.wall_clock())
        error = error_of(status, body, retry_after_s, self.where)
        return self._again_in(error, status in AGAIN_STATUSES, retry_after_s)

    def broke(self, error: httpx.RequestError) -> float:
        """The connection broke before the answer began; as `refused`."""
        late = isinstance(error, httpx.TimeoutException) and self._no_patience
        if late or isinstance(error, httpx.ReadTimeout):
            raise self.expired() from error
        found, again = self._told(error)
        try:
            return self._again_in(found, again, None)
        except HeliostatError as told:
            raise told from error

    def failed(self, error: RequestError | StreamBrokenError) -> float:
        """A stream said so, or ended, before its first piece; as `refused`."""
        if isinstance(error, RequestError):
            return self._again_in(error, error.status in AGAIN_STATUSES, None)
        found = UnreachableError(f"{error.message}{self._attempts()}")
        try:
            return self._again_in(found, True, None)
        except HeliostatError as told:
            raise told from error

    def _told(self, error: httpx.RequestError) -> tuple[HeliostatError, bool]:
        """What broke, and whether it may be tried again."""
        what = str(error) or type(error).__name__
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            # The server may be at work on it still: asking again would double that.
            return TimedOutError(f"{self.where}: nothing could be sent for {self.timeout_s} s"), False
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


def broke_off(error: httpx.RequestError | TimeoutError, timeout_s: float) -> str:
    """Why a stream that has begun broke."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return f"nothing came for {timeout_s} s; see timeout_s"
    return f"the connection broke: {str(error) or type(error).__name__}"
