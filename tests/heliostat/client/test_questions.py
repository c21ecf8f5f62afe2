"""Questions over a context: what is sent is what is kept, and a mistake costs nothing that was paid for."""

import asyncio
import signal
import sys

import pytest

from heliostat import Client, InvalidRequestError

INTERRUPTED = """
import sys
from heliostat import Client

with Client(sys.argv[1]) as client:
    try:
        client.context().ask_all([("m", "1?"), ("m", "2?")])
    except KeyboardInterrupt:
        print("interrupted")
"""


async def streamed(exchange) -> None:
    await exchange.head()
    await exchange.text("an answer", "stop")
    await exchange.event("[DONE]")
    await exchange.end()


async def test_a_question_is_read_once(server, asker, answering) -> None:
    server.then(answering("an answer"))
    client = asker()
    ctx = client.client.context()
    await client.call(ctx.ask, "m", iter([{"role": "user", "content": "1?"}]), keep=True)
    assert [each["content"] for each in ctx.messages] == ["1?", "an answer"]


async def test_a_question_that_its_author_changes_is_kept_as_it_was_sent(server, asker) -> None:
    server.then(streamed)
    client = asker()
    ctx = client.client.context()
    mine = {"role": "user", "content": [{"type": "text", "text": "as it was"}]}
    stream = ctx.stream_ask("m", mine, keep=True)
    mine["content"][0]["text"] = "changed"
    await client.pieces(stream, [])
    assert ctx.messages[0] == server.asked[0].body["messages"][0]
    assert ctx.messages[0]["content"] == [{"type": "text", "text": "as it was"}]


@pytest.mark.parametrize(
    ("questions", "options", "kind"),
    [
        ([("m", "fine"), ("m", ["no message"])], {}, TypeError),
        ([("m", "fine"), ("m",)], {}, ValueError),
        ([("m", "fine"), ("m", [{"role": "user", "content": float("nan")}])], {}, InvalidRequestError),
        ({"m": "fine"}, {"keep": True}, TypeError),
        ({"m": "fine"}, {"extra_headers": {"x-a": "사용자"}}, InvalidRequestError),
    ],
)
async def test_a_mistake_in_one_question_is_told_before_any_is_sent(
    server, asker, questions, options, kind
) -> None:
    client = asker()
    with pytest.raises(kind):
        await client.call(client.client.context().ask_all, questions, **options)
    assert server.asked == []


async def test_an_interrupt_does_not_wait_for_answers(server) -> None:
    async def silent(exchange) -> None:
        await exchange.client_left()

    server.always = silent
    piped = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INTERRUPTED, server.url, stdout=piped
    )
    async with asyncio.timeout(30):
        await server.has_asked(2)
        process.send_signal(signal.SIGINT)
        said, _ = await process.communicate()
    assert said.decode() == "interrupted\n" and process.returncode == 0


async def test_threads_share_a_context(server, answering) -> None:
    """Each question is counted, and kept with its answer behind it."""
    server.always = answering("an answer")
    with Client(server.url) as client:
        ctx = client.context()
        ask = [asyncio.to_thread(ctx.ask, "m", str(number), keep=True) for number in range(16)]
        await asyncio.gather(*ask)
    assert ctx.usage.requests == 16
    assert [each["role"] for each in ctx.messages] == ["user", "assistant"] * 16
