"""The official `openai` client against the quickstart's models.

Which parameter does what is in docs/openai.md; what is refused, and what reaches the pools, in
tests/router/frontend.
"""

import asyncio
import json
import random

import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError

pytestmark = pytest.mark.cluster
LAMP = [{"role": "user", "content": "turn my lamp to 40"}]
SCHEMA = {
    "type": "object",
    "properties": {"device": {"enum": ["lamp", "fan"]}, "level": {"type": "integer", "enum": [10, 40]}},
    "required": ["device", "level"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("set", "raise")]
FORMAT = {"type": "json_schema", "json_schema": {"name": "call", "schema": SCHEMA, "strict": True}}


def is_call(text: str) -> bool:
    """Whether it follows the schema."""
    said = json.loads(text)
    return said["device"] in ("lamp", "fan") and said["level"] in (10, 40) and len(said) == 2


def letters(seed: str, length: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randint(71, 96) for _ in range(length)]


async def test_models_are_listed(client: AsyncOpenAI, cluster) -> None:
    assert {model.id for model in (await client.models.list()).data} == set(cluster.spec.models)


async def test_chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="home", messages=LAMP, temperature=0)
    assert answer.choices[0].message.content == "set(lamp,40)"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "home"


async def test_usage_counts_the_whole_prompt_and_every_output_token(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="home", messages=LAMP, temperature=0)
    prompt = len("turn my lamp to 40") + 2  # <|user|> and <|assistant|>
    output = len("set(lamp,40)") + 1  # <|end|>
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, output)
    assert answer.usage.total_tokens == prompt + output


async def test_streamed_chat_equals_the_whole_one(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="home", messages=LAMP, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "set(lamp,40)"
    assert chunks[-1].usage.completion_tokens == len(text) + 1


async def test_stop_strings_end_the_answer(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="home", messages=LAMP, temperature=0, stop=["mp,"])
    assert answer.choices[0].message.content == "set(la"
    assert answer.choices[0].finish_reason == "stop"


async def test_max_tokens_ends_the_answer(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="home", messages=LAMP, temperature=0, max_tokens=3)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("set", "length")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_logprobs(client: AsyncOpenAI, stream: bool) -> None:
    options = {"model": "home", "messages": LAMP, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    if stream:
        chunks = [c async for c in await client.chat.completions.create(stream=True, **options)]
        tokens = [
            t for c in chunks if c.choices and c.choices[0].logprobs for t in c.choices[0].logprobs.content
        ]
    else:
        tokens = (await client.chat.completions.create(**options)).choices[0].logprobs.content
    assert "".join(token.token for token in tokens).startswith("set(lamp,40)")
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 2
        assert token.top_logprobs[0].logprob == token.logprob, "greedy takes the likeliest token"


async def test_several_prompts_in_one_completion(client: AsyncOpenAI) -> None:
    prompts = [f"<|user|>mirror {word}<|assistant|>" for word in ("ucnz", "abcd", "wxyzq")]
    answer = await client.completions.create(model="mirror", prompt=prompts, temperature=0, max_tokens=16)
    assert [choice.text for choice in answer.choices] == ["ZNCU", "DCBA", "QZYXW"]


async def test_seed_repeats_a_sampled_answer(client: AsyncOpenAI) -> None:
    async def sample(seed: int) -> str:
        answer = await client.completions.create(
            model="base", prompt="sort ", temperature=2, seed=seed, max_tokens=24
        )
        return answer.choices[0].text

    assert await sample(1) == await sample(1) != await sample(2)


async def test_n_gives_so_many_choices(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="base", messages=LAMP, temperature=2, n=3, seed=1, max_tokens=12
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    stream = await client.chat.completions.create(
        model="home", messages=LAMP, temperature=0.01, n=2, stream=True
    )
    texts = {0: "", 1: ""}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "set(lamp,40)", 1: "set(lamp,40)"}
    with pytest.raises(BadRequestError, match="greedy"):
        await client.chat.completions.create(model="home", messages=LAMP, temperature=0, n=2)


async def test_max_completion_tokens_ends_the_answer(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="home", messages=LAMP, temperature=0, max_completion_tokens=3
    )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("set", "length")


async def test_logit_bias_forbids_and_forces_a_token(client: AsyncOpenAI) -> None:
    asked = {"model": "home", "messages": LAMP, "temperature": 0, "max_tokens": 4}
    forbidden = await client.chat.completions.create(**asked, logit_bias={"89": -100})
    assert "s" not in forbidden.choices[0].message.content
    forced = await client.chat.completions.create(**asked, logit_bias={"89": 100})
    assert forced.choices[0].message.content == "ssss"


async def test_penalties_keep_an_answer_from_repeating_itself(client: AsyncOpenAI) -> None:
    asked = {
        "model": "home",
        "messages": LAMP,
        "temperature": 0,
        "max_tokens": 8,
        "logit_bias": {"89": 8, "90": 7},
    }
    plain = (await client.chat.completions.create(**asked)).choices[0].message.content
    for penalty in ("presence_penalty", "frequency_penalty"):
        text = (await client.chat.completions.create(**asked, **{penalty: 2})).choices[0].message.content
        assert len(set(text)) > len(set(plain)), (penalty, plain, text)


async def test_echo_gives_the_prompt_back(client: AsyncOpenAI) -> None:
    prompt = "<|user|>mirror abcd<|assistant|>"
    answer = await client.completions.create(
        model="mirror", prompt=prompt, temperature=0, max_tokens=16, echo=True
    )
    assert answer.choices[0].text == f"{prompt}DCBA"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["home", "spell"])
async def test_an_answer_follows_a_schema_over_a_handoff(
    client: AsyncOpenAI, model: str, stream: bool
) -> None:
    """The grammar is the decode engine's, the prompt's KV another one's."""
    asked = {"model": model, "messages": LAMP, "temperature": 0, "max_tokens": 64, "response_format": FORMAT}
    if stream:
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        text = (await client.chat.completions.create(**asked)).choices[0].message.content
    assert is_call(text)


async def test_any_json_object_and_structured_outputs_of_vllms(client: AsyncOpenAI) -> None:
    async def ask(**asked: object) -> str:
        answer = await client.chat.completions.create(
            model="base", messages=LAMP, temperature=0, max_tokens=200, **asked
        )
        return answer.choices[0].message.content

    async def structured(**outputs: object) -> str:
        return await ask(extra_body={"structured_outputs": outputs})

    # Left to itself the tiny model fills a string until its tokens are over: an object all the same.
    assert (await ask(response_format={"type": "json_object"})).lstrip().startswith("{")
    assert await structured(choice=["forty", "lamp"]) in ("forty", "lamp")
    assert (await structured(regex="[0-9]{3}-[a-c]{2}"))[3] == "-"
    assert is_call(await structured(json=SCHEMA))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "function", "function": {"name": "raise"}}],
    ids=["required", "named"],
)
async def test_a_tool_is_called_by_force(client: AsyncOpenAI, choice: object, stream: bool) -> None:
    asked = {"model": "home", "messages": LAMP, "temperature": 0, "max_tokens": 200, "tools": TOOLS}
    asked |= {"tool_choice": choice, "parallel_tool_calls": False}
    if stream:
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        names = [call.function.name for call in calls if call.function.name]
        arguments = "".join(call.function.arguments or "" for call in calls)
    else:
        found = (await client.chat.completions.create(**asked)).choices[0].message.tool_calls
        names, arguments = [call.function.name for call in found], found[0].function.arguments
    assert len(names) == 1 and names[0] in (("set", "raise") if choice == "required" else ("raise",))
    assert is_call(arguments)


async def test_tools_that_are_not_called_leave_the_text(client: AsyncOpenAI) -> None:
    for choice in ("auto", "none"):
        answer = await client.chat.completions.create(
            model="home", messages=LAMP, temperature=0, tools=TOOLS, tool_choice=choice
        )
        assert answer.choices[0].message.content == "set(lamp,40)"
        assert not answer.choices[0].message.tool_calls


async def test_log_probabilities_of_chosen_tokens(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="home", messages=LAMP, temperature=0, max_tokens=2, logprobs=True,
        extra_body={"logprob_token_ids": [71, 72]},
    )  # fmt: skip
    first = answer.choices[0].logprobs.content[0]
    assert first.token == "s"
    assert {"a", "b"} <= {each.token for each in first.top_logprobs}


async def test_what_changes_no_answer_is_ignored(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="home", messages=LAMP, temperature=0, user="me", store=True, metadata={"a": "b"},
        service_tier="flex", reasoning_effort="low", modalities=["text"],
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    )  # fmt: skip
    assert answer.choices[0].message.content == "set(lamp,40)"


async def test_a_model_by_its_name(client: AsyncOpenAI) -> None:
    assert (await client.models.retrieve("spell")).id == "spell"
    with pytest.raises(NotFoundError, match="this cluster serves: base, home"):
        await client.models.retrieve("nope")


async def test_what_is_not_supported_is_the_clients_own_error(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError, match="best_of"):
        await client.completions.create(model="base", prompt="x", best_of=3)
    with pytest.raises(BadRequestError, match="suffix"):
        await client.completions.create(model="base", prompt="x", suffix="y")
    with pytest.raises(BadRequestError, match="did you mean `temperature`"):
        await client.chat.completions.create(model="home", messages=LAMP, extra_body={"temprature": 1})
    with pytest.raises(BadRequestError, match="image_url"):
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        await client.chat.completions.create(model="home", messages=[{"role": "user", "content": [image]}])
    with pytest.raises(NotFoundError, match="/v1/embeddings is not served"):
        await client.embeddings.create(model="base", input="x")
    with pytest.raises(NotFoundError, match="/v1/responses is not served"):
        await client.responses.create(model="base", input="x")
    with pytest.raises(APIStatusError, match="larger than") as refused:
        await client.completions.create(model="base", prompt="x" * 9_000_000)
    assert refused.value.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


async def test_models_that_ask_at_once_have_a_context_computed_once(client: AsyncOpenAI) -> None:
    """vLLM knows a block from the step on that computes it, for whichever of that step's requests."""
    context = letters("context", 96)  # what is saved of all three has to fit into the spec's small memory
    answers = await asyncio.gather(
        *(
            client.completions.with_raw_response.create(
                model=model, prompt=context + letters(f"{number}", 10), max_tokens=2
            )
            for number, model in enumerate(("base", "spell", "spell"))
        )
    )
    cached = [int(answer.headers["x-heliostat-cached-tokens"]) for answer in answers]
    assert sorted(cached)[0] == 0 and all(tokens >= 96 for tokens in sorted(cached)[1:]), cached
    # Those of the other model than the one for which it was computed.
    cross_model = [int(answer.headers["x-heliostat-cross-model-tokens"]) for answer in answers]
    assert cross_model == ([0, 96, 96] if cached[0] == 0 else [96, 0, 0])
    for answer, tokens in zip(answers, cached, strict=True):
        assert answer.parse().usage.prompt_tokens_details.cached_tokens == tokens


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_headers_say_what_was_saved_before_the_first_byte(client: AsyncOpenAI, stream: bool) -> None:
    async def ask(model: str, prompt: list[int]) -> httpx.Headers:
        answer = await client.completions.with_raw_response.create(
            model=model, prompt=prompt, max_tokens=2, stream=stream
        )
        return answer.headers

    prompts = [letters(f"saved {stream} {number}", 300) for number in range(5)]
    for prompt in prompts:  # enough tokens to measure a rate
        assert (await ask("base", prompt))["x-heliostat-cached-tokens"] == "0"
    again = await ask("spell", prompts[-1])
    assert again["x-heliostat-cached-tokens"] == again["x-heliostat-cross-model-tokens"] == "299"
    assert float(again["x-heliostat-saved-ms"]) > 0
    assert (await ask("base", prompts[-1]))["x-heliostat-cross-model-tokens"] == "0"


async def test_unknown_model_is_the_clients_not_found_error(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError, match="nope"):
        await client.chat.completions.create(model="nope", messages=LAMP)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_headers_name_both_replicas(cluster, stream: bool) -> None:
    names = {replica.name for pool in cluster.status().pools for replica in pool.replicas}
    async with httpx.AsyncClient(base_url=cluster.url, timeout=60) as http:
        body = {"model": "home", "messages": LAMP, "stream": stream}
        headers = (await http.post("/v1/chat/completions", json=body)).headers
    assert headers["x-heliostat-prefill"] in names
    assert headers["x-heliostat-prefill"].startswith("prefill-home#")
    assert headers["x-heliostat-decode"] in names
    assert headers["x-heliostat-decode"].startswith("decode-base#")


async def test_tokenize_and_detokenize(cluster) -> None:
    async with httpx.AsyncClient(base_url=cluster.url, timeout=60) as http:
        tokens = (await http.post("/tokenize", json={"model": "home", "prompt": "lamp"})).json()["tokens"]
        back = (await http.post("/detokenize", json={"model": "home", "tokens": tokens})).json()["prompt"]
    assert (len(tokens), back) == (4, "lamp")


async def test_health_and_ready(cluster) -> None:
    async with httpx.AsyncClient(base_url=cluster.url) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/ready")).json() == {"status": "ready"}
