"""The headers that are sent, read by a server on a real socket."""

import pytest

from heliostat import Hints, InvalidRequestError


async def test_headers_do_not_care_about_case(server, asker, answering) -> None:
    server.then(answering("ok"))
    client = asker(api_key="secret", headers={"AUTHORIZATION": "Basic x", "User-Agent": "mine"})
    ctx = client.client.context(session="one")
    more = {"X-Heliostat-Session": "other", "Content-Type": "application/json; charset=utf-8"}
    await client.call(
        ctx.ask, "m", "hi", extra_headers=more | {"X-Heliostat-Deadline": "9"}, hints=Hints(deadline_s=5)
    )
    told = {
        "authorization": "Basic x",
        "user-agent": "mine",
        "content-type": "application/json; charset=utf-8",
        "x-heliostat-session": "other",
        "x-heliostat-deadline": "5.000",
    }
    assert told.items() <= server.asked[0].headers.items()
    assert server.asked[0].doubled == ()


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"x-a": "사용자"}, "the header x-a holds '사'"),
        ({"x-a": "one\ntwo"}, r"the header x-a holds '\\n'"),
        ({"x-a": 3}, "the header x-a is a int"),
        ({"이름": "a"}, "'이름' cannot be a header's name"),
    ],
)
async def test_what_cannot_be_a_header_is_refused_here(server, asker, headers, says) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        await asker().chat("m", "hi", extra_headers=headers)
    with pytest.raises(InvalidRequestError, match=says):
        asker(headers=headers)
    assert server.asked == []


def test_what_cannot_be_a_session_is_refused_as_a_context_begins(asker) -> None:
    with pytest.raises(InvalidRequestError, match=r"the header x-heliostat-session holds '사'.*quote"):
        asker().client.context(session="사용자")


def test_a_key_that_cannot_be_sent_is_not_shown(asker) -> None:
    with pytest.raises(InvalidRequestError, match="the header authorization holds") as caught:
        asker(api_key="sk-secret\n")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "sent"), [(None, "Bearer of-the-environment"), ("mine", "Bearer mine"), ("", None)]
)
async def test_a_key_that_is_not_given_is_the_environments(
    server, asker, answering, monkeypatch, given: str | None, sent: str | None
) -> None:
    monkeypatch.setenv("HELIOSTAT_API_KEY", "of-the-environment")
    server.then(answering("yes"))
    await asker(api_key=given).chat("m", "q")
    assert server.asked[0].headers.get("authorization") == sent
