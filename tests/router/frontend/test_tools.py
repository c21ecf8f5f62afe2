"""Tool calls up to the pools and back: what is forced, what is found, and what guides the arguments."""

import json

import pytest
from chat_bodies import CHAT, NAMED, TOOL, chat

from heliostat.errors import HeliostatError
from router.frontend.tool_calls import registered


async def test_named_and_required_tools_are_forced_into_json(surface) -> None:
    surface.pools.text = '{"level": 2}'
    answer = await surface.openai.chat.completions.create(**chat(tools=[TOOL], tool_choice=NAMED))
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("set", {"level": 2})
    assert surface.pools.sampling.structured_outputs is not None
    surface.pools.text = '[{"name": "set", "parameters": {"level": 1}}]'
    answer = await surface.openai.chat.completions.create(**chat(tools=[TOOL], tool_choice="required"))
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("set", {"level": 1})
    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("parser", ["json_surface", "hermes_surface"])
async def test_a_forced_call_comes_before_a_format(
    parser: str, open_surface, request: pytest.FixtureRequest
) -> None:
    """As at OpenAI: what is formatted is an answer in words, of which there is none."""
    served = open_surface(request.getfixturevalue(parser))
    sampled = []
    for asked in ({}, {"response_format": {"type": "json_object"}}):
        await served.http.post(CHAT, json=chat(tools=[TOOL], tool_choice=NAMED, **asked))
        sampled.append(served.pools.sampling.structured_outputs)
    assert sampled[0] is not None and sampled[0] == sampled[1]


@pytest.mark.parametrize("parser", ["json_surface", "hermes_surface"])
async def test_a_format_comes_before_a_call_that_may_be(
    parser: str, open_surface, request: pytest.FixtureRequest
) -> None:
    served = open_surface(request.getfixturevalue(parser))
    await served.http.post(CHAT, json=chat(tools=[TOOL], response_format={"type": "json_object"}))
    assert served.pools.sampling.structured_outputs.json_object is True


STRICT = {"type": "function", "function": {**TOOL["function"], "strict": True}}


@pytest.mark.parametrize("tool", [TOOL, STRICT], ids=["open", "strict"])
async def test_without_a_parser_of_vllms_a_forced_calls_arguments_fit_and_no_others(surface, tool) -> None:
    await surface.http.post(CHAT, json=chat(tools=[tool], tool_choice=NAMED))
    assert surface.pools.sampling.structured_outputs.json == TOOL["function"]["parameters"]
    await surface.http.post(CHAT, json=chat(tools=[tool]))
    assert surface.pools.sampling.structured_outputs is None


@pytest.mark.parametrize(("tool", "fits"), [(TOOL, False), (STRICT, True)], ids=["open", "strict"])
async def test_with_one_those_of_a_strict_tool_fit(hermes, tool, fits: bool) -> None:
    await hermes.http.post(CHAT, json=chat(tools=[tool], tool_choice=NAMED))
    assert ("level" in hermes.pools.sampling.structured_outputs.structural_tag) == fits
    await hermes.http.post(CHAT, json=chat(tools=[tool]))
    guided = hermes.pools.sampling.structured_outputs
    assert ("level" in guided.structural_tag) if fits else guided is None


async def test_with_one_an_answer_may_be_a_strict_call_or_have_a_format(hermes) -> None:
    await hermes.http.post(CHAT, json=chat(tools=[STRICT], response_format={"type": "json_object"}))
    tag = json.loads(hermes.pools.sampling.structured_outputs.structural_tag)
    assert tag["format"]["type"] == "or"


async def test_forced_tools_are_streamed(surface) -> None:
    surface.pools.text = '[{"name": "set", "parameters": {"level": 1}}]'
    stream = await surface.openai.chat.completions.create(
        **chat(tools=[TOOL], tool_choice="required", stream=True)
    )
    calls = [call async for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.function.name for call in calls if call.function.name] == ["set"]
    assert json.loads("".join(call.function.arguments or "" for call in calls)) == {"level": 1}


@pytest.mark.parametrize("parser", ["json_surface", "hermes_surface"])
async def test_calls_are_found_in_text(parser: str, open_surface, request: pytest.FixtureRequest) -> None:
    served = open_surface(request.getfixturevalue(parser))
    served.pools.text = 'well <tool_call>\n{"name": "set", "arguments": {"level": 2}}\n</tool_call>'
    answer = await served.openai.chat.completions.create(**chat(tools=[TOOL]))
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("set", {"level": 2})
    assert answer.choices[0].finish_reason == "tool_calls"
    assert served.pools.sampling.structured_outputs is None
    served.pools.text = "no call"
    answer = await served.openai.chat.completions.create(**chat(tools=[TOOL]))
    assert (answer.choices[0].message.content, answer.choices[0].message.tool_calls) == ("no call", None)


async def test_a_parser_of_vllms_forces_calls_into_its_own_form(hermes) -> None:
    hermes.pools.text = '<tool_call>\n{"name": "set", "arguments": {"level": 2}}\n</tool_call>'
    answer = await hermes.openai.chat.completions.create(**chat(tools=[TOOL], tool_choice="required"))
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"level": 2}
    assert "tool_call" in hermes.pools.sampling.structured_outputs.structural_tag


def test_a_parser_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(HeliostatError, match=r"did you mean `hermes`.*choose from"):
        registered("hermez")
