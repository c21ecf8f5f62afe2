"""What a server says, read into an answer: whole and streamed give the same."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from heliostat import Message, ModelCard, Piece, ServedBy, ToolCall, UnexpectedAnswerError, Usage
from heliostat.client.reading import AnswerReader

HEADERS = {
    "x-heliostat-prefill": "prefill-base#a",
    "x-heliostat-decode": "decode-math#b",
    "x-heliostat-cached-tokens": "64",
    "x-heliostat-cross-model-tokens": "32",
    "x-heliostat-saved-ms": "12.5",
}


def whole(body: object, headers: dict[str, str] | None = None):
    return AnswerReader(headers or {}, "http://host").whole(json.dumps(body).encode())


def streamed(*bodies: object, headers: dict[str, str] | None = None):
    reader = AnswerReader(headers or {}, "http://host")
    pieces: list[Piece] = []
    for body in (*bodies, "[DONE]"):
        data = body if isinstance(body, str) else json.dumps(body)
        pieces += reader.feed(f"data: {data}\n\n".encode())
    return pieces, reader.answer


def choice(index: int = 0, **fields: object) -> dict[str, object]:
    return {"id": "x", "model": "m", "choices": [{"index": index, **fields}]}


def test_headers_say_who_served_and_what_was_saved() -> None:
    body = choice(message={"content": "a"}) | {"usage": {"prompt_tokens": 70, "completion_tokens": 1}}
    answer = whole(body, HEADERS)
    assert answer.served_by == ServedBy(prefill="prefill-base#a", decode="decode-math#b")
    assert answer.usage == Usage(
        prompt_tokens=70, output_tokens=1, cached_tokens=64, cross_model_tokens=32, saved_ms=12.5
    )


@pytest.mark.parametrize("details", [{"cached_tokens": 16}, {"cached_tokens": None}, None])
def test_any_other_server_may_say_less(details: dict[str, int] | None) -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 2, "prompt_tokens_details": details}
    answer = whole(choice(message={"content": "a"}) | {"usage": usage})
    cached = (details or {}).get("cached_tokens") or 0
    assert answer.usage == Usage(prompt_tokens=20, output_tokens=2, cached_tokens=cached)
    assert answer.served_by == ServedBy()
    assert whole({"choices": []}).usage == Usage()
    for figure in ("much", "nan", "inf"):
        headers = {"x-heliostat-cached-tokens": figure, "x-heliostat-saved-ms": figure}
        assert whole({"choices": []}, headers).usage == Usage()


def test_a_stream_adds_up_to_the_whole_answer() -> None:
    pieces, answer = streamed(
        choice(delta={"role": "assistant", "content": ""}),
        choice(delta={"reasoning_content": "hm"}),
        choice(delta={"content": "a"}),
        choice(1, delta={"content": "z"}),
        choice(delta={"content": "b"}, finish_reason="length"),
        choice(1, delta={}, finish_reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}},
        headers=HEADERS,
    )
    assert [piece.text for piece in pieces if piece.index == 0] == ["", "a", "b"]
    first = {"content": "ab", "reasoning": "hm"}
    body = {
        "id": "x",
        "model": "m",
        "choices": [
            {"index": 0, "message": first, "finish_reason": "length"},
            {"index": 1, "message": {"content": "z"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3},
    }
    assert answer.model_copy(update={"raw": {}}) == whole(body, HEADERS).model_copy(update={"raw": {}})
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("ab", "hm", "length")
    assert answer.raw == {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}


CALLS = (
    ToolCall(id="1", name="set", arguments='{"what": "lamp"}'),
    ToolCall(id="2", name="get", arguments="{}"),
)


def test_tool_calls_whole_and_in_pieces() -> None:
    message = {"content": None, "tool_calls": [call.as_dict() for call in CALLS]}
    answer = whole(choice(message=message, finish_reason="tool_calls"))
    assert answer.tool_calls == CALLS
    assert answer.text == ""
    _, pieced = streamed(
        choice(delta={"tool_calls": [{"index": 0, "id": "1", "function": {"name": "set", "arguments": ""}}]}),
        choice(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"what": '}}]}),
        choice(delta={"tool_calls": [{"index": 0, "function": {"arguments": '"lamp"}'}}]}),
        choice(
            delta={"tool_calls": [{"index": 1, "id": "2", "function": {"name": "get", "arguments": "{}"}}]}
        ),
        choice(delta={}, finish_reason="tool_calls"),
    )
    assert pieced.tool_calls == CALLS
    assert answer.message == Message("assistant", "", CALLS)
    assert answer.message.as_dict()["tool_calls"] == message["tool_calls"]


def test_logprobs_of_chats_and_of_completions_read_the_same() -> None:
    top: list[dict[str, Any]] = [{"token": "yes", "logprob": -0.1}, {"token": "no", "logprob": -2.5}]
    content = [{"token": "yes", "logprob": -0.1, "top_logprobs": top}]
    chat = whole(choice(message={"content": "yes"}, logprobs={"content": content}))
    lists = {"tokens": ["yes"], "token_logprobs": [-0.1], "top_logprobs": [{"yes": -0.1, "no": -2.5}]}
    completion = whole(choice(text="yes", logprobs=lists))
    assert chat.logprobs == completion.logprobs
    assert chat.logprobs[0].top == {"yes": -0.1, "no": -2.5}
    assert (chat.text, completion.text) == ("yes", "yes")


def test_an_echoed_prompts_first_token_has_no_logprob() -> None:
    lists = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {"b": -1.0}]}
    assert [each.logprob for each in whole(choice(text="ab", logprobs=lists)).logprobs] == [None, -1.0]


class Call(BaseModel):
    what: str
    value: int


def test_a_structured_answer_is_parsed_or_says_what_is_wrong() -> None:
    assert whole(choice(message={"content": '{"what": "lamp", "value": 40}'})).parse(Call).value == 40
    cut = whole(choice(message={"content": '{"what": "lamp"'}, finish_reason="length"))
    with pytest.raises(UnexpectedAnswerError, match=r"m answered what is no Call: .*finish_reason length"):
        cut.parse(Call)


@pytest.mark.parametrize("body", ["[]", "{}", '{"choices": 3}', "not JSON", ""])
def test_what_is_no_answer_says_so(body: str) -> None:
    with pytest.raises(UnexpectedAnswerError, match="http://host answered what is no answer of OpenAI's"):
        AnswerReader({}, "http://host").whole(body.encode())


async def test_models_and_status(server, asker) -> None:
    async def told(exchange) -> None:
        if exchange.asked.path == "/v1/models":
            card = {"id": "math", "object": "model", "owned_by": "us", "max_model_len": 2048, "parent": None}
            await exchange.answer({"object": "list", "data": [card]})
        elif exchange.asked.path == "/status":
            await exchange.answer({"version": "1", "ready": True, "pools": [], "later": "added"})

    server.always = told
    client = asker()
    assert await client.call(client.client.models) == (
        ModelCard(id="math", owned_by="us", max_model_len=2048),
    )
    status = await client.call(client.client.status)
    assert (status.version, status.ready, status.pools) == ("1", True, ())
