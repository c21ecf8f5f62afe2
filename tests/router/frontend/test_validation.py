"""Bodies that are not what an endpoint takes: the place, what is wrong there, and what was found."""

import pytest
from chat_bodies import CHAT

JSON = {"content-type": "application/json"}
CALL = {"id": "x", "type": "function", "function": {"name": "set", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"model":', "the body is not JSON: Expecting value, at character 9"),
        ('{"model": home}', "the body is not JSON: Expecting value, at character 10"),
        ("", "the body is empty; send a JSON object"),
        ("null", "the body is empty; send a JSON object"),
        ('["home"]', 'the body is not a JSON object; found ["home"]'),
        ('"home"', 'the body is not a JSON object; found "home"'),
    ],
)
async def test_a_body_that_is_no_json_object(surface, body: str, says: str) -> None:
    answer = await surface.http.post(CHAT, content=body, headers=JSON)
    error = answer.json()["error"]
    assert (answer.status_code, error["message"], error["param"]) == (400, says, None)


@pytest.mark.parametrize(
    ("call", "place", "says"),
    [
        ({**CALL, "type": None}, "type", "Input should be 'function'; found null"),
        ({**CALL, "type": "funcion"}, "type", "Input should be 'function'; found \"funcion\""),
        ({"id": "x", "type": "function"}, "function", "Field required"),
        ({**CALL, "function": {"name": "set"}}, "function.arguments", "Field required"),
        (
            {**CALL, "function": {"name": "set", "arguments": {"level": 1}}},
            "function.arguments",
            'Input should be a valid string; found {"level": 1}',
        ),
        ("set", "", 'Input should be a valid dictionary; found "set"'),
    ],
)
async def test_a_tool_call_is_named_with_the_message_that_holds_it(
    surface, call: object, place: str, says: str
) -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "x", "content": "ok"},
        {"role": "assistant", "tool_calls": [CALL, call]},
    ]
    answer = await surface.http.post(CHAT, json={"model": "home", "messages": messages})
    whole = f"messages.3.tool_calls.1.{place}".rstrip(".")
    error = answer.json()["error"]
    assert (answer.status_code, error["message"], error["param"]) == (400, f"`{whole}`: {says}", whole)


async def test_another_type_of_body_is_refused(surface) -> None:
    response = await surface.http.post(CHAT, content=b"hello", headers={"content-type": "text/plain"})
    assert response.status_code == 400
    assert "json" in response.json()["error"]["message"]
