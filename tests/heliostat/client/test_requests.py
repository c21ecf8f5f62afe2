"""What goes over the wire, read by a server on a real socket."""

import json

import pytest
from pydantic import BaseModel, RootModel

from heliostat import AsyncClient, HeliostatError, Hints, InvalidRequestError, Message, ToolCall


class Colour(BaseModel):
    name: str


async def test_a_chats_options_are_its_body_and_its_hints_its_headers(server, asker, answering) -> None:
    server.then(answering("ok"))
    said = [Message("system", "Be brief."), {"role": "user", "content": "hi"}]
    await asker(api_key="secret", headers={"x-team": "blue"}).chat(
        "math",
        said,
        temperature=0,
        max_tokens=5,
        stop=("a", "b"),
        logit_bias={"7": -100},
        hints=Hints(priority=-1, expected_tokens=9, reuse_soon=True),
        extra_body={"top_k": 4, "max_tokens": 6},
        extra_headers={"x-request-id": "r-1"},
    )
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "math",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "temperature": 0,
        "max_tokens": 6,
        "stop": ["a", "b"],
        "logit_bias": {"7": -100},
        "top_k": 4,
    }
    told = {
        "authorization": "Bearer secret",
        "x-team": "blue",
        "x-request-id": "r-1",
        "x-heliostat-priority": "-1",
        "x-heliostat-expected-tokens": "9",
        "x-heliostat-reuse": "soon",
    }
    assert told.items() <= asked.headers.items()
    assert "x-heliostat-deadline" not in asked.headers


async def test_without_hints_no_header_of_ours_is_sent(server, asker, answering) -> None:
    server.then(answering("ok"))
    await asker().chat("m", "hi", hints=Hints(expected_tokens=0))
    assert [name for name in server.asked[0].headers if name.startswith("x-")] == []


@pytest.mark.parametrize("prompt", ["text", [1, 2, 3], ["two", "texts"], [[1], [2, 3]]])
async def test_a_completions_prompt_is_text_or_ids(server, asker, prompt) -> None:
    async def completion(exchange) -> None:
        await exchange.answer({"choices": [{"index": 0, "text": "!", "finish_reason": "stop"}]})

    server.then(completion)
    client = asker()
    answer = await client.call(client.client.complete, "m", prompt, logprobs=2, echo=True)
    assert answer.text == "!"
    assert server.asked[0].path == "/v1/completions"
    assert server.asked[0].body == {"model": "m", "prompt": prompt, "logprobs": 2, "echo": True}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": False}),
        ({"stream_options": None}, None),
    ],
)
async def test_a_stream_asks_for_usage_unless_told_otherwise(server, asker, given, sent) -> None:
    async def stream(exchange) -> None:
        await exchange.head()
        await exchange.text("ok", "stop")
        await exchange.event("[DONE]")
        await exchange.end()

    server.then(stream)
    client = asker()
    await client.pieces(client.client.stream_chat("m", "hi", **given), [])
    assert server.asked[0].body.get("stream_options") == sent
    assert server.asked[0].body["stream"] is True


async def test_a_shape_becomes_its_schema(server, asker, answering) -> None:
    server.then(answering('{"name": "red"}'))
    answer = await asker().chat("m", "which?", response_format=Colour)
    assert answer.parse(Colour).name == "red"
    told = server.asked[0].body["response_format"]
    assert told["type"] == "json_schema"
    # `strict` would be refused by OpenAI for most schemas as pydantic writes them.
    assert told["json_schema"] == {"name": "Colour", "schema": Colour.model_json_schema()}


async def test_a_schemas_name_is_one_that_openai_takes(server, asker, answering) -> None:
    server.then(answering("[]"))
    await asker().chat("m", "which?", response_format=RootModel[list[Colour]])
    assert server.asked[0].body["response_format"]["json_schema"]["name"] == "RootModel_list_Colour__"


def test_a_tools_result_names_its_call() -> None:
    call = ToolCall(id="7", name="look", arguments="{}")
    asked = Message("assistant", None, (call,)).as_dict()
    function = {"name": "look", "arguments": "{}"}
    assert asked["tool_calls"] == [{"id": "7", "type": "function", "function": function}]
    assert Message("tool", "found", tool_call_id="7").as_dict() == {
        "role": "tool",
        "content": "found",
        "tool_call_id": "7",
    }


async def test_korean_goes_as_it_is(server, asker, answering) -> None:
    server.then(answering("네"))
    assert (await asker().chat("m", "안녕?")).text == "네"
    assert "안녕?" in server.asked[0].content.decode()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": float("nan")}, "not JSON compliant"),
        ({"extra_body": {"x": object()}}, "is a object"),
        ({"user": "\ud800"}, "surrogates"),
    ],
)
async def test_what_cannot_be_sent_is_refused_here(server, asker, options, says) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        await asker().chat("m", "hi", **options)
    assert server.asked == []


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
async def test_the_address_may_end_as_other_clients_want_it(server, answering, end) -> None:
    server.then(answering("ok"))
    async with AsyncClient(server.url + end) as client:
        await client.chat("m", "hi")
    assert server.asked[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", ""])
def test_what_is_no_address_is_told_at_once(url: str) -> None:
    with pytest.raises(HeliostatError, match="base_url is"):
        AsyncClient(url)


async def test_a_server_under_a_path(server, answering) -> None:
    server.then(answering("ok"))
    async with AsyncClient(f"{server.url}/gateway/v1") as client:
        await client.chat("m", "hi")
    assert server.asked[0].path == "/gateway/v1/chat/completions"


async def test_the_same_request_is_the_same_bytes(server, asker, answering) -> None:
    server.always = answering("ok")
    client = asker()
    for _ in range(2):
        await client.chat("m", [Message("user", "hi")], temperature=0, stop=["x"])
    assert server.asked[0].content == server.asked[1].content
    assert json.loads(server.asked[0].content)["stop"] == ["x"]
