"""The line of a request as text: one line, one meaning, whatever a client called its request."""

import json
import logging
import re

import pytest

from router.request_log import RequestLog, request_fields
from router.trace import Trace
from router.tracing.spans import HttpRequest

PATH = "/v1/completions"


def line(caplog: pytest.LogCaptureFixture, request: HttpRequest) -> str:
    caplog.set_level(logging.INFO, logger="router.request_log")
    RequestLog("text").write(request)
    return caplog.messages[-1]


def test_what_is_not_known_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    request = HttpRequest(PATH, "r1", 1.0, model="home", status=429, ended_s=1.0015)
    assert line(caplog, request) == (
        "request request_id=r1 path=/v1/completions status=429 outcome=refused model=home duration_ms=1.5"
    )


@pytest.mark.parametrize("name", ["a b", 'a"b', "a=b status=200", "a\nb", "a\x1b[31m", "é"])
def test_a_strange_name_cannot_look_like_another_field(caplog: pytest.LogCaptureFixture, name: str) -> None:
    text = line(caplog, HttpRequest(PATH, name, 1.0, status=200, ended_s=1.0))
    assert len(text.splitlines()) == 1
    shown = text.removeprefix("request request_id=").partition(" path=")[0]
    assert (json.loads(shown) if shown.startswith('"') else shown) == name


def test_nothing_is_made_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="router.request_log")
    RequestLog("json").write(HttpRequest(PATH, "r1", 1.0, ended_s=1.0))
    assert caplog.records == []


def test_the_line_on_the_page_has_the_fields_of_a_request(shown: str) -> None:
    trace = Trace(
        model="home",
        prefill_replica="prefill-home#lde5gfc9",
        decode_replica="decode-base#c6465lgn",
        prompt_tokens=20,
        cached_tokens=19,
        output_tokens=13,
        handoff_bytes=262144,
        attempts=1,
        started_s=1.0,
        admitted_s=1.1,
        prefilled_s=1.2,
        first_token_s=1.3,
    )
    request = HttpRequest(
        "/v1/chat/completions", "r1", 1.0, trace_id="t1", status=200, ended_s=1.4, traces=[trace]
    )
    on_page = re.findall(r'"(\w+)": ', shown)
    assert (
        list(request_fields(request)) == on_page[on_page.index("request_id") : on_page.index("ttft_ms") + 1]
    )
