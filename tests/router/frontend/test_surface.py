"""OpenAI's parameters, one by one, up to the pools: what acts, and what is ignored."""

import json
from contextlib import nullcontext

import httpx
import pytest
from chat_bodies import CHAT, COMPLETIONS, TOOL, chat
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError

from router.frontend.api_keys import ApiKeyCheck, ApiKeys

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
    "stream_interval": 3,
    "request_id": "mine",
    "mm_payload": "none",
    "return_mm_kwargs": False,
}

DEFAULTS = {
    "length_penalty": 1.0,
    "watermarking": False,
    "return_token_offsets": False,
    "routed_experts_prompt_start": 0,
    "vllm_xargs": {},
    "include_reasoning": True,
    "use_beam_search": False,
    "kv_transfer_params": {},
}
"""Of what is refused otherwise: clients that write out every parameter ask for nothing by it."""


async def test_what_changes_no_answer_is_taken(surface) -> None:
    answer = await surface.http.post(CHAT, json=chat(**IGNORED, **DEFAULTS))
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


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_prompt_as_the_template_made_it_is_given_back(surface, stream: bool) -> None:
    answer = await surface.http.post(CHAT, json=chat(return_prompt_text=True, stream=stream))
    first = answer.text.splitlines()[0].removeprefix("data: ")
    assert json.loads(first)["prompt_text"] == "<|user|>hi<|assistant|>"


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
    surface.pools.brought = [96]
    other = await surface.http.post(COMPLETIONS, json={**body, "model": "spell"})
    assert counts(other.headers) == ("p0", "d0", "96", "96", "24.000")


async def test_headers_sum_over_the_prompts_of_a_request(surface) -> None:
    surface.pools.cached, surface.pools.rate = [32, 64], 4000.0
    surface.pools.brought = [16, 8]
    answer = await surface.http.post(COMPLETIONS, json={"model": "home", "prompt": ["a" * 80, "b" * 80]})
    assert counts(answer.headers)[2:] == ("96", "24", "24.000")


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
