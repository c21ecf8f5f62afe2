"""OpenAI's parameters, one by one, up to the pools: what acts, what is ignored, and what is refused."""

import json
from contextlib import nullcontext

import httpx
import pytest
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError

from heliostat.errors import HeliostatError
from router.frontend.api_keys import ApiKeyCheck, ApiKeys
from router.frontend.tool_calls import registered

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "set",
        "parameters": {"type": "object", "properties": {"level": {"enum": [1, 2]}}, "required": ["level"]},
    },
}
NAMED = {"type": "function", "function": {"name": "set"}}


def chat(**changes: object) -> dict[str, object]:
    return {"model": "home", "messages": HELLO, "max_tokens": 128, **changes}


def part(kind: str, **value: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": kind, **value}]}]


REFUSED = {
    # OpenAI's, of chats.
    "audio": ({"audio": {"voice": "alloy", "format": "wav"}}, "text"),
    "modalities": ({"modalities": ["text", "audio"]}, '["text"]'),
    "functions": ({"functions": [{"name": "set"}]}, "`tools`"),
    "function_call": ({"function_call": "auto"}, "`tool_choice`"),
    "verbosity": ({"verbosity": "low"}, "verbosity"),
    "web_search_options": ({"web_search_options": {}}, "web_search_options"),
    "an image": ({"messages": part("image_url", image_url={"url": "http://there/x.png"})}, "image_url"),
    "sound": ({"messages": part("input_audio", input_audio={"data": "", "format": "wav"})}, "input_audio"),
    "a file": ({"messages": part("file", file={"file_id": "x"})}, "file"),
    "a part that nobody knows": ({"messages": part("smell")}, "smell"),
    "a custom tool": ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0"),
    "no tools": ({"tools": []}, "tools"),
    "a tool that is not there": (
        {"tools": [TOOL], "tool_choice": {**NAMED, "function": {"name": "x"}}},
        "tool",
    ),
    "a choice of no tool": ({"tool_choice": "required"}, "tools"),
    "a schema of no such type": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "objekt"}},
            }
        },
        "objekt",
    ),
    "a schema without a name": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format.json_schema.name",
    ),
    "another format": ({"response_format": {"type": "xml"}}, "json_schema"),
    "a broken regex": ({"structured_outputs": {"regex": "["}}, "regex"),
    "five stop strings": ({"stop": list("abcde")}, "at most 4"),
    "an unknown parameter": ({"temprature": 1}, "did you mean `temperature`?"),
    "a choice of tools": (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
        "tool_choice",
    ),
    "a wrong type": ({"temperature": "hot"}, "`temperature`"),
    "a wrong content": ({"messages": [{"role": "user", "content": 3}]}, "`messages.0.content`"),
    "no role": ({"messages": [{"content": "x"}]}, "`messages.0.role`"),
    "messages that are none": ({"messages": None}, "wrong type"),
    "no n": ({"n": 0}, "n must be"),
    "an n that will never fit": ({"n": 1001}, "`n` is 1001"),
    "logit_bias of no token": ({"logit_bias": {"lamp": 1}}, "lamp"),
    "logit_bias beyond the vocabulary": ({"logit_bias": {"99999": 1}}, "99999"),
    "a penalty out of range": ({"presence_penalty": 9}, "presence_penalty"),
    "top_logprobs alone": ({"top_logprobs": 2}, "logprobs"),
    "too many top_logprobs": ({"logprobs": True, "top_logprobs": 50}, "20"),
    "stream_options alone": ({"stream_options": {"include_usage": True}}, "stream"),
    # vLLM's.
    "beam search": ({"use_beam_search": True, "n": 2}, "use_beam_search"),
    "a salt": ({"cache_salt": "secret"}, "cache_salt"),
    "a template": ({"chat_template": "{{ 1 }}"}, "chat_template"),
    "a template among its arguments": ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template"),
    "a ticket": ({"kv_transfer_params": {"prompt_token_ids": [70]}}, "kv_transfer_params"),
    "a guided answer, as it was": ({"guided_json": {"type": "object"}}, "structured_outputs"),
    "echo": ({"echo": True}, "echo"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_would_be_left_out_of_a_chat_is_refused(surface, case: str) -> None:
    changes, says = REFUSED[case]
    response = await surface.http.post(CHAT, json=chat(**changes))
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert says in error["message"]
    assert (error["code"], bool(error["type"])) == (400, True)
    assert str(surface.pools.decodes) == "[]", "nothing was computed"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"best_of": 3}, "`best_of` is 3 and `n` is 1"),
        ({"suffix": "end"}, "suffix"),
        ({"echo": True, "logprobs": 1}, "log probabilities of prompt tokens"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a", 1]}, "`prompt.0`"),
        ({"modalities": ["text"]}, "`modalities` is not a parameter"),
    ],
)
async def test_what_would_be_left_out_of_a_completion_is_refused(surface, changes, says: str) -> None:
    response = await surface.http.post(COMPLETIONS, json={"model": "home", "prompt": "lamp", **changes})
    assert response.status_code == 400, response.text
    assert says in response.json()["error"]["message"]


IGNORED = {
    "user": "me",
    "store": True,
    "metadata": {"a": "b"},
    "service_tier": "flex",
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "prediction": {"type": "content", "content": "ok"},
    "modalities": ["text"],
    "audio": None,
    "stream_options": None,
}


async def test_another_type_of_body_is_refused(surface) -> None:
    response = await surface.http.post(CHAT, content=b"hello", headers={"content-type": "text/plain"})
    assert response.status_code == 400
    assert "json" in response.json()["error"]["message"]


async def test_what_changes_no_answer_is_taken(surface) -> None:
    answer = await surface.http.post(CHAT, json=chat(**IGNORED))
    assert answer.json()["choices"][0]["message"]["content"] == "ok"


async def test_sampling_parameters_reach_the_decode_replica(surface) -> None:
    await surface.openai.chat.completions.create(
        **chat(
            temperature=0.5, top_p=0.9, seed=7, presence_penalty=1, frequency_penalty=-1, n=2, stop=["x"],
            logit_bias={"70": -100}, logprobs=True, top_logprobs=3, max_tokens=None, max_completion_tokens=9,
        )
    )  # fmt: skip
    sampling = surface.pools.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.n) == (0.5, 0.9, 7, 2)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert (sampling.stop, sampling.logit_bias, sampling.logprobs) == (["x"], {70: -100.0}, 3)
    assert (sampling.max_tokens, surface.pools.decodes[-1].max_tokens) == (9, 9)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"response_format": {"type": "json_object"}}, ("json_object", True)),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "object"}},
                }
            },
            ("json", {"type": "object"}),
        ),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, ("grammar", 'root ::= "yes" | "no"')),
        ({"structured_outputs": {"regex": "[0-9]+"}}, ("regex", "[0-9]+")),
    ],
)
async def test_structured_outputs_reach_the_decode_replica(surface, asked, expected) -> None:
    assert (await surface.http.post(CHAT, json=chat(**asked))).status_code == 200
    name, value = expected
    found = getattr(surface.pools.sampling.structured_outputs, name)
    assert (json.loads(found) if isinstance(found, str) and name == "json" else found) == value


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


@pytest.mark.parametrize("thinking", [True, False])
async def test_template_arguments_reach_the_template(hermes, thinking: bool) -> None:
    extra = {"chat_template_kwargs": {"enable_thinking": thinking}}
    await hermes.openai.chat.completions.create(**chat(extra_body=extra))
    assert hermes.pools.prompt == f"thinking {thinking} tools 0 hi"


async def test_without_them_the_template_decides_and_tools_reach_it(hermes) -> None:
    await hermes.openai.chat.completions.create(**chat(tools=[TOOL], tool_choice="none"))
    assert hermes.pools.prompt == "thinking unsaid tools 1 hi"


async def test_echo_gives_the_prompt_back(surface) -> None:
    asked = {"model": "home", "prompt": "lamp ", "echo": True}
    assert (await surface.openai.completions.create(**asked)).choices[0].text == "lamp ok"
    assert (await surface.openai.completions.create(**asked, max_tokens=0)).choices[0].text == "lamp "


async def test_models_one_by_one(surface) -> None:
    assert (await surface.openai.models.retrieve("spell")).id == "spell"
    with pytest.raises(NotFoundError, match="this cluster serves: home, spell"):
        await surface.openai.models.retrieve("nope")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/images/generations", "/v1/batches"])
async def test_an_endpoint_that_is_not_served_says_which_are(surface, path: str) -> None:
    response = await surface.http.post(path, json={"model": "home", "input": "x"})
    assert response.status_code == 404
    assert f"{path} is not served" in response.json()["error"]["message"]
    assert "/v1/chat/completions" in response.json()["error"]["message"]


def counts(headers: httpx.Headers) -> tuple[str | None, ...]:
    names = ("prefill", "decode", "cached-tokens", "cross-model-tokens", "saved-ms")
    return tuple(headers.get(f"x-heliostat-{name}") for name in names)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_headers_say_what_was_saved(surface, stream: bool) -> None:
    body = {"model": "home", "prompt": f"{stream}" + "x" * 96, "stream": stream}
    first = await surface.http.post(COMPLETIONS, json=body)
    assert counts(first.headers) == ("p0", "d0", "0", "0", None), "no rate is known yet"
    surface.pools.cached, surface.pools.rate = [96, 96], 4000.0
    again = await surface.http.post(COMPLETIONS, json=body)
    assert counts(again.headers) == ("p0", "d0", "96", "0", "24.000")
    other = await surface.http.post(COMPLETIONS, json={**body, "model": "spell"})
    assert counts(other.headers) == ("p0", "d0", "96", "96", "24.000")


async def test_headers_sum_over_the_prompts_of_a_request(surface) -> None:
    surface.pools.cached, surface.pools.rate = [32, 64], 4000.0
    answer = await surface.http.post(COMPLETIONS, json={"model": "home", "prompt": ["a" * 80, "b" * 80]})
    assert counts(answer.headers)[2:] == ("96", "0", "24.000")


async def test_an_error_saves_nothing(surface) -> None:
    refused = await surface.http.post(CHAT, json=chat(n=0))
    assert counts(refused.headers) == (None,) * 5


async def test_a_wrong_key_is_the_clients_authentication_error(json_surface) -> None:
    locked = httpx.ASGITransport(ApiKeyCheck(json_surface[0].app, ApiKeys("sk-right")))
    async with httpx.AsyncClient(transport=locked) as http:
        for key, refused in (("sk-wrong", pytest.raises(AuthenticationError)), ("sk-right", nullcontext())):
            client = AsyncOpenAI(base_url="http://router/v1", api_key=key, http_client=http)
            with refused:
                assert (await client.models.retrieve("home")).id == "home"


async def test_hints_reach_the_pools(surface) -> None:
    hints = {"session": "ctx", "expected-tokens": "5", "reuse": "soon", "priority": "2", "deadline": "3"}
    headers = {f"x-heliostat-{name}": value for name, value in hints.items()}
    assert (await surface.http.post(CHAT, json=chat(), headers=headers)).status_code == 200
    (prefill,), (decode,) = surface.pools.prefills, surface.pools.decodes
    assert (prefill.session, prefill.reuse_soon) == ("ctx", True)
    assert (decode.session, decode.expected_tokens) == ("ctx", 5)


async def test_vllms_session_id_is_a_session_where_ours_is_not_given(surface) -> None:
    for headers in ({}, {"x-heliostat-session": "ours"}):
        await surface.http.post(CHAT, json=chat(session_id="theirs"), headers=headers)
    assert [leg.session for leg in surface.pools.prefills] == ["theirs", "ours"]


async def test_a_malformed_hint_is_a_400(surface) -> None:
    with pytest.raises(BadRequestError, match="x-heliostat-priority is 'high'; give it an integer"):
        await surface.openai.chat.completions.create(**chat(), extra_headers={"x-heliostat-priority": "high"})
