"""Whether and when a request is sent again, without any network."""

from itertools import chain, repeat

import httpx
import pytest

from heliostat import Backoff, HeliostatError, Hints, OverloadedError, TimedOutError, UnreachableError
from heliostat.client.call import Call, Rules
from heliostat.client.requests import Request
from heliostat.client.retry import AGAIN_STATUSES, parse_retry_after

BACKOFF = Backoff(first_s=1, longest_s=8, patience_s=60)
NOON = 784123200.0
"""Sun, 06 Nov 1994 12:00:00 GMT."""


def low() -> float:
    return 0.0


def high() -> float:
    return 1.0


def test_waits_double_up_to_the_longest() -> None:
    assert [BACKOFF.wait_s(n, None, high) for n in range(6)] == [1, 2, 4, 8, 8, 8]
    assert [BACKOFF.wait_s(n, None, low) for n in range(6)] == [0.5, 1, 2, 4, 4, 4]


def test_nobody_comes_back_before_the_server_says() -> None:
    assert (BACKOFF.wait_s(0, 7, low), BACKOFF.wait_s(0, 7, high)) == (7, 8)
    assert BACKOFF.wait_s(0, 0, low) == 0


def test_a_wait_beyond_patience_is_no_wait() -> None:
    assert BACKOFF.wait_s(0, 60, low) == 60
    assert BACKOFF.wait_s(0, 60.5, low) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("-1", 0),
        ("Sun, 06 Nov 1994 12:00:05 GMT", 5),
        ("Sun, 06 Nov 1994 13:00:05 +0100", 5),
        ("Sun, 06 Nov 1994 11:00:00 GMT", 0),
        ("soon", None),
        ("Sun, 06 Nov 99999 12:00:05 GMT", None),
        ("Sun, 06 Nov 99999999999 12:00:05 GMT", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOON) == seconds


def call(max_retries: int = 2, hints: Hints | None = None, **rules: float) -> Call:
    request = Request("POST", "/v1/x", hints=hints or Hints())
    told = Rules("http://host", max_retries=max_retries, backoff=BACKOFF, random=high, clock=low)
    return Call(request, told)


def test_only_these_statuses_are_tried_again() -> None:
    assert {408, 429, 502, 503, 504} == AGAIN_STATUSES
    for status in range(400, 600):
        if status in AGAIN_STATUSES:
            assert call().refused(status, {}, b"") == 1
        else:
            with pytest.raises(HeliostatError, match=f"answered {status}"):
                call().refused(status, {}, b"")


def test_with_no_retries_there_is_one_attempt() -> None:
    with pytest.raises(OverloadedError):
        call(max_retries=0).refused(429, {"retry-after": "1"}, b"")


def test_no_attempt_begins_after_the_deadline() -> None:
    now = chain([0.0], repeat(5.0))
    request = Request("POST", "/v1/x", hints=Hints(deadline_s=5))
    with pytest.raises(TimedOutError, match=r"deadline of 5 s"):
        Call(request, Rules("http://host", clock=lambda: next(now))).begin()


def test_the_hints_deadline_goes_before_the_clients() -> None:
    rules = Rules("http://host", deadline_s=5, clock=low)
    assert Call(Request("GET", "/"), rules).begin() == {"x-heliostat-deadline": "5.000"}
    mine = Request("GET", "/", hints=Hints(deadline_s=2.5))
    assert Call(mine, rules).begin() == {"x-heliostat-deadline": "2.500"}


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 0, -1])
@pytest.mark.parametrize("name", ["timeout_s", "answer_timeout_s", "deadline_s"])
def test_a_time_that_is_none_is_told_at_once(name: str, seconds: float) -> None:
    with pytest.raises(HeliostatError, match=f"^{name} is"):
        Rules("http://host", **{name: seconds})


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_a_deadline_that_is_none_is_told_at_once(seconds: float) -> None:
    with pytest.raises(HeliostatError, match="deadline_s is"):
        Hints(deadline_s=seconds)


def test_a_deadline_that_is_over_is_no_mistake() -> None:
    """It may be what is left of somebody else's."""
    with pytest.raises(TimedOutError, match="deadline of -1 s"):
        call(hints=Hints(deadline_s=-1)).begin()


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.WriteError("pipe"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
    ],
)
def test_a_connection_that_breaks_before_the_answer_is_tried_again(error: httpx.TransportError) -> None:
    tried = call(max_retries=1)
    assert tried.broke(error) == 1
    with pytest.raises(UnreachableError, match=str(error)) as caught:
        tried.broke(error)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (httpx.ReadTimeout(""), "no answer began within 60.0 s"),
        (httpx.WriteTimeout(""), "nothing could be sent for 60.0 s"),
    ],
)
def test_a_silent_server_is_not_asked_again(error: httpx.TransportError, says: str) -> None:
    with pytest.raises(TimedOutError, match=says):
        call().broke(error)
