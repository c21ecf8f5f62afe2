"""Several models over one context: same beginning, one session, and nobody's answer is lost."""

import asyncio
import pickle

import pytest

from heliostat import (
    AsyncClient,
    Client,
    Hints,
    Message,
    OverloadedError,
    SomeFailedError,
    Totals,
    UnknownModelError,
)

OPENING = b'"messages":[{"role":"system","content":"Be brief.\\n\\nfirst\\n\\nsecond"},'


def echo(**headers: str):
    """Answers with the model's name and its last message."""

    async def script(exchange) -> None:
        body = exchange.asked.body
        if body["model"] == "gone":
            await exchange.answer({"error": {"message": "no model gone"}}, 404)
            return
        text = f"{body['model']}: {body['messages'][-1]['content']}"
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 5}
        await exchange.answer({"choices": [choice], "usage": usage}, **headers)

    return script


@pytest.fixture
def context(server, asker):
    """The context, and the client to call it with."""
    server.always = echo(x_heliostat_cached_tokens="90", x_heliostat_saved_ms="1.5")
    client = asker()
    return client, client.client.context(system="Be brief.", documents=["first", "second"])


def opening(content: bytes) -> bytes:
    """What a body has from its messages on."""
    return content[content.index(b'"messages"') :]


async def test_all_requests_begin_with_the_same_bytes_in_one_session(server, context) -> None:
    client, ctx = context
    await client.call(ctx.ask, "math", "1 + 1?")
    await client.call(ctx.ask_all, {"math": "2 + 2?", "code": "print?"}, temperature=0)
    await client.call(ctx.fork().ask, "code", "exit?")
    assert len(server.asked) == 4
    assert {opening(asked.content)[: len(OPENING)] for asked in server.asked} == {OPENING}
    assert {asked.headers["x-heliostat-session"] for asked in server.asked} == {ctx.session}
    assert {asked.headers["x-heliostat-reuse"] for asked in server.asked} == {"soon"}
    assert client.client.context().session != ctx.session


async def test_a_context_only_changes_when_it_is_told(server, context) -> None:
    client, ctx = context
    before = ctx.messages
    await client.call(ctx.ask, "math", "1?")
    assert ctx.messages == before and len(before) == 1
    await client.call(ctx.ask, "math", "2?", keep=True)
    ctx.add(Message("user", "mine"), "and more")
    kept = [("user", "2?"), ("assistant", "math: 2?"), ("user", "mine"), ("user", "and more")]
    assert [(each["role"], each["content"]) for each in ctx.messages[1:]] == kept
    await client.call(ctx.ask, "code", ())
    assert tuple(server.asked[-1].body["messages"]) == ctx.messages


async def test_a_fork_goes_its_own_way(context) -> None:
    client, ctx = context
    ctx.add("shared")
    other = ctx.fork()
    other.add("of the fork")
    await client.call(other.ask, "math", "?")
    assert [each["content"] for each in ctx.messages[1:]] == ["shared"]
    assert [each["content"] for each in other.messages[1:]] == ["shared", "of the fork"]
    assert other.session == ctx.session
    assert (ctx.usage.requests, other.usage.requests) == (0, 1)


async def test_a_message_that_its_author_changes_later_stays_as_it_was(context) -> None:
    _, ctx = context
    mine = {"role": "user", "content": [{"type": "text", "text": "as it was"}]}
    ctx.add(mine)
    mine["content"][0]["text"] = "changed"
    ctx.messages[1]["content"] = "changed"
    assert ctx.messages[1]["content"] == [{"type": "text", "text": "as it was"}]


async def test_usage_is_counted_in_all_and_by_model(context) -> None:
    client, ctx = context
    await client.call(ctx.ask, "math", "1?")
    await client.call(ctx.ask_all, [("math", "2?"), ("code", "3?")])
    one = Totals(requests=1, prompt_tokens=100, output_tokens=5, cached_tokens=90, saved_ms=1.5)
    assert ctx.usage.by_model == {"math": one + one, "code": one}
    total = one + one + one
    assert (ctx.usage.requests, ctx.usage.cached_tokens, ctx.usage.saved_ms) == (3, 270, 4.5)
    assert ctx.usage.prompt_tokens == total.prompt_tokens


async def test_hints_of_a_request_go_before_those_of_the_context(server, asker) -> None:
    server.always = echo()
    client = asker()
    ctx = client.client.context(hints=Hints(priority=5), session="mine")
    await client.call(ctx.ask, "math", "?")
    await client.call(ctx.ask, "math", "?", hints=Hints(expected_tokens=3))
    first, second = (asked.headers for asked in server.asked)
    assert first["x-heliostat-session"] == second["x-heliostat-session"] == "mine"
    assert first["x-heliostat-priority"] == "5"
    assert "x-heliostat-priority" not in second and second["x-heliostat-expected-tokens"] == "3"
    assert first["x-heliostat-reuse"] == second["x-heliostat-reuse"] == "soon"


async def test_questions_as_a_sequence_may_name_a_model_twice(context) -> None:
    client, ctx = context
    answers = await client.call(ctx.ask_all, [("math", "1?"), ("math", "2?")])
    assert [answer.text for answer in answers] == ["math: 1?", "math: 2?"]
    assert await client.call(ctx.ask_all, []) == []
    assert await client.call(ctx.ask_all, {}) == {}


async def test_one_failure_loses_no_answer(context) -> None:
    client, ctx = context
    with pytest.raises(SomeFailedError, match="1 of 2 questions failed: gone: no model gone") as caught:
        await client.call(ctx.ask_all, {"math": "1?", "gone": "2?"})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.answers["math"].text == "math: 1?"
    assert isinstance(copy.errors["gone"], UnknownModelError)
    outcomes = await client.call(ctx.ask_all, [("gone", "1?"), ("math", "2?")], return_errors=True)
    assert isinstance(outcomes[0], UnknownModelError) and outcomes[1].text == "math: 2?"


@pytest.mark.parametrize("kind", [AsyncClient, Client])
async def test_all_are_asked_at_once(server, kind) -> None:
    """Each is answered only when all have come."""
    all_here = asyncio.Barrier(5)

    async def together(exchange) -> None:
        await all_here.wait()
        await echo()(exchange)

    server.always = together
    questions = [("math", str(number)) for number in range(5)]
    async with asyncio.timeout(10):
        if kind is AsyncClient:
            async with AsyncClient(server.url) as client, client.context() as ctx:
                answers = await ctx.ask_all(questions)
        else:
            with Client(server.url) as client, client.context() as ctx:
                answers = await asyncio.to_thread(ctx.ask_all, questions)
    assert [answer.text for answer in answers] == [f"math: {number}" for number in range(5)]


async def test_who_cancels_cancels_all(server) -> None:
    here, gone = asyncio.Barrier(4), asyncio.Barrier(4)

    async def silent(exchange) -> None:
        await here.wait()
        await exchange.client_left()
        await gone.wait()

    server.always = silent
    async with AsyncClient(server.url) as client, asyncio.timeout(10):
        task = asyncio.create_task(client.context().ask_all([("math", str(n)) for n in range(3)]))
        await here.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


async def test_a_streamed_question_counts_and_is_kept_when_it_is_over(server, asker) -> None:
    async def stream(exchange) -> None:
        await exchange.head(x_heliostat_cached_tokens="7")
        await exchange.text("an ")
        await exchange.text("answer", "stop")
        await exchange.event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
        await exchange.event("[DONE]")
        await exchange.end()

    server.then(stream)
    client = asker()
    ctx = client.client.context(system="Be brief.")
    answer = await client.pieces(ctx.stream_ask("math", "1?", keep=True), [])
    assert answer.text == "an answer"
    assert [each["content"] for each in ctx.messages] == ["Be brief.", "1?", "an answer"]
    assert (ctx.usage.requests, ctx.usage.cached_tokens, ctx.usage.output_tokens) == (1, 7, 2)


async def test_a_refused_question_leaves_the_context_as_it_was(server, asker) -> None:
    async def full(exchange) -> None:
        await exchange.answer({"error": {"message": "full"}}, 429)

    server.always = full
    client = asker(max_retries=0)
    ctx = client.client.context(system="Be brief.")
    with pytest.raises(OverloadedError):
        await client.call(ctx.ask, "math", "1?", keep=True)
    assert len(ctx.messages) == 1 and ctx.usage.requests == 0
