"""The official `openai` client against the quickstart's models."""

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError

pytestmark = pytest.mark.cluster
LAMP = [{"role": "user", "content": "turn my lamp to 40"}]


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
