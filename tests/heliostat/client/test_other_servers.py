"""Where other servers part from OpenAI's protocol, or go further, without any network."""

import json

import pytest

from heliostat import (
    HeliostatError,
    InvalidRequestError,
    Piece,
    PoolUnavailableError,
    RequestError,
    ToolCall,
    UnexpectedAnswerError,
)
from heliostat.client.reading import AnswerReader, check_is_stream

WHERE = "http://host"


def choice(index: int = 0, **fields: object) -> dict[str, object]:
    return {"id": "x", "model": "m", "choices": [{"index": index, **fields}]}


def events(*bodies: object) -> bytes:
    return "".join(f"data: {json.dumps(body)}\n\n" for body in bodies).encode()


def streamed(*bodies: object):
    reader = AnswerReader({}, WHERE)
    pieces = list(reader.feed(events(*bodies, choice(delta={}, finish_reason="stop"))))
    list(reader.feed(None))
    return pieces, reader.answer


def part(index: int | None, call_id: str | None, name: str | None, arguments: str) -> dict[str, object]:
    call = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return choice(delta={"tool_calls": [call]})


CALLS = (ToolCall(id="1", name="set", arguments="[1]"), ToolCall(id="2", name="get", arguments="[2]"))


@pytest.mark.parametrize("indices", [(0, 0, 1, 1), (0, 0, 0, 0), (None, None, None, None), (1, 1, 0, 0)])
@pytest.mark.parametrize("again", [None, ""])
def test_calls_are_told_apart_by_number_or_by_id(indices: tuple[int | None, ...], again: str | None) -> None:
    first, more, second, rest = indices
    pieces, answer = streamed(
        part(first, "1", "set", "["),
        part(more, again, None, "1]"),
        part(second, "2", "get", "[2"),
        part(rest, again, None, "]"),
    )
    assert sorted(answer.tool_calls, key=lambda call: call.id) == list(CALLS)
    numbers = [call.index for piece in pieces for call in piece.tool_calls]
    assert numbers == ([1, 1, 0, 0] if first == 1 else [0, 0, 1, 1]), "pieces have the calls' own numbers"


def test_a_call_whose_id_is_repeated_is_one_call() -> None:
    _, answer = streamed(part(0, "1", "set", "["), part(0, "1", None, "1]"), part(0, "2", "get", "[2]"))
    assert answer.tool_calls == CALLS


def test_calls_may_come_without_a_number_at_all() -> None:
    delta = {"tool_calls": [{"id": call.id, "function": call.as_dict()["function"]} for call in CALLS]}
    assert streamed(choice(delta=delta))[1].tool_calls == CALLS


@pytest.mark.parametrize(
    ("event", "kind", "code"),
    [
        (
            choice(delta={"content": ""}) | {"error": {"message": "lost", "code": 503}},
            PoolUnavailableError,
            "",
        ),
        ({"choices": [], "error": {"message": "lost", "code": "odd"}}, RequestError, "odd"),
        ({"object": "error", "message": "lost", "code": 400}, InvalidRequestError, ""),
        ({"error": {"message": "lost", "status": 400, "code": "too_long"}}, InvalidRequestError, "too_long"),
        ({"error": {"message": "lost", "code": "503"}, "choices": None}, PoolUnavailableError, ""),
    ],
)
def test_an_error_in_mid_stream_is_found_and_ends_it(
    event: object, kind: type[RequestError], code: str
) -> None:
    reader = AnswerReader({}, WHERE)
    pieces: list[Piece] = []
    with pytest.raises(HeliostatError, match=r"^lost$") as caught:
        pieces.extend(
            reader.feed(events(choice(delta={"content": "so far"}), event, choice(delta={"content": "?"})))
        )
    assert type(caught.value) is kind and caught.value.code == code
    assert reader.over and list(reader.feed(None)) == []
    assert reader.answer.text == "so far"


def test_an_error_object_in_an_answer_that_succeeded() -> None:
    with pytest.raises(InvalidRequestError, match=r"^too long$"):
        AnswerReader({}, WHERE).whole(b'{"error": {"message": "too long", "code": 400}}')


def test_events_that_say_nothing_are_left_out() -> None:
    reader = AnswerReader({}, WHERE)
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    said = events({}, choice(delta={"content": "a"}, finish_reason="stop"), usage)
    assert [piece.text for piece in reader.feed(ping + said + ping)] == ["a"]
    assert list(reader.feed(None)) == []
    assert reader.answer.usage.prompt_tokens == 3


def test_another_protocol_says_so() -> None:
    with pytest.raises(UnexpectedAnswerError, match="choices: missing"):
        list(AnswerReader({}, WHERE).feed(events({"type": "message_start"})))


def test_content_in_parts_is_text() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "b"},
    ]
    body = choice(message={"content": parts}, finish_reason="stop")
    assert AnswerReader({}, WHERE).whole(json.dumps(body).encode()).text == "ab"
    assert streamed(choice(delta={"content": parts}))[1].text == "ab"


def test_a_refusal_is_told_apart_from_the_text() -> None:
    body = choice(message={"content": None, "refusal": "I will not."}, finish_reason="stop")
    whole = AnswerReader({}, WHERE).whole(json.dumps(body).encode())
    pieces, answer = streamed(choice(delta={"refusal": "I will "}), choice(delta={"refusal": "not."}))
    assert whole.refusal == answer.refusal == "I will not."
    assert whole.text == answer.text == ""
    assert [piece.refusal for piece in pieces] == ["I will ", "not.", ""]


def test_a_content_type_does_not_care_about_case() -> None:
    check_is_stream({"content-type": "Text/Event-Stream; charset=utf-8"}, WHERE)


def test_a_first_event_that_says_nothing_is_no_piece() -> None:
    """As SGLang and Ollama begin: the role, and a finish reason that is empty."""
    pieces, _ = streamed(choice(delta={"role": "assistant", "content": ""}, finish_reason=""))
    assert pieces == [Piece(finish_reason="stop")]


def test_an_answers_number_is_its_id() -> None:
    reader = AnswerReader({}, WHERE)
    list(reader.feed(events({"id": 7, "choices": [{"delta": {"content": "yes"}}]})))
    assert (reader.answer.id, reader.answer.text) == ("7", "yes")


def test_an_event_without_data_is_passed_over() -> None:
    reader = AnswerReader({}, WHERE)
    assert list(reader.feed(b"data:\n\n" + events(choice(delta={"content": "yes"})))) == [Piece(text="yes")]
