"""Models made of adapters, served: SUN with LoRA and ICaRus equal their references token for token."""

import asyncio
import json
import random
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError

from kvtransfer.card import read_card

pytestmark = pytest.mark.modules

EXAMPLES = Path(__file__).parents[2] / "examples"
SUN = ("base", "home", "mirror")
ICARUS = ("base-icarus", "home-icarus", "mirror-icarus", "spell-icarus")
BLOCK = 32
MAX_TOKENS = 24
FIRST_LETTER, LAST_LETTER = 60, 90
LENGTHS = (1, 2, 31, 32, 33, 130, 333)
POINTS = 0.03
"""Cards count 600 samples, the committed held-out files 200 others."""


def letters(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randint(FIRST_LETTER, LAST_LETTER) for _ in range(length))


def prompts() -> list[tuple[int, ...]]:
    """All models get the same ones, so that each prefix is shared between writers (rule 3)."""
    rng = random.Random(17)
    return [letters(rng, length) for length in LENGTHS]


async def ask(client: AsyncOpenAI, model: str, prompt: tuple[int, ...], max_tokens: int = MAX_TOKENS):
    return await client.completions.with_raw_response.create(
        model=model,
        prompt=list(prompt),
        max_tokens=max_tokens,
        temperature=0,
        extra_body={"return_token_ids": True, "ignore_eos": True},
    )


async def generate(client: AsyncOpenAI, model: str, prompt: tuple[int, ...], max_tokens: int = MAX_TOKENS):
    return (await ask(client, model, prompt, max_tokens)).parse().choices[0].token_ids


def test_the_models_differ(modules_cluster) -> None:
    """Otherwise no test here could notice one model answering for another."""
    prompt = prompts()[-2]
    answers = {tuple(modules_cluster.reference(model, prompt, MAX_TOKENS)) for model in (*SUN, *ICARUS)}
    assert len(answers) == len(SUN) + len(ICARUS) - 1, "only the base of both decode pools is one model"


@pytest.mark.parametrize("model", (*SUN, *ICARUS))
async def test_every_token_is_exact(modules_cluster, client: AsyncOpenAI, model: str) -> None:
    for prompt in prompts():
        expected = modules_cluster.reference(model, prompt, MAX_TOKENS)
        assert await generate(client, model, prompt) == expected, len(prompt)


async def test_every_token_is_exact_with_all_models_in_one_batch(modules_cluster, client) -> None:
    """The base's rows beside adapted ones among them, and more KV than the ICaRus pool holds."""
    rng = random.Random(29)
    work = [(model, letters(rng, 120 + index)) for index in range(3) for model in (*SUN, *ICARUS)]
    rng.shuffle(work)
    answers = await asyncio.gather(*(generate(client, model, prompt, 40) for model, prompt in work))
    wrong = [
        (model, len(prompt))
        for (model, prompt), tokens in zip(work, answers, strict=True)
        if tokens != modules_cluster.reference(model, prompt, 40)
    ]
    assert wrong == []


async def test_sun_adapters_in_turn_on_one_context(modules_cluster, client: AsyncOpenAI) -> None:
    """Rules 3 and 4: each turn is prefilled by the model's own adapter, generated tokens among it."""
    context = letters(random.Random(5), 70)
    for model in ("home", "mirror", "base", "home", "mirror"):
        response = await ask(client, model, context)
        answer = response.parse().choices[0].token_ids
        assert response.headers["x-heliostat-cross-model-tokens"] == "0", "each writes KV of its own"
        assert answer == modules_cluster.reference(model, context, MAX_TOKENS), (model, len(context))
        context += (*answer, *prompts()[2])


async def test_icarus_adapters_in_turn_read_what_the_others_wrote(modules_cluster, client) -> None:
    """Rule 8: no turn but the first is prefilled, and generated tokens are found by the next model."""
    rng = random.Random(6)
    context = letters(rng, 400)
    written = mine = 0
    for turn, model in enumerate(
        ("home-icarus", "spell-icarus", "base-icarus", "mirror-icarus", "home-icarus")
    ):
        response = await ask(client, model, context)
        answer = response.parse()
        tokens = answer.choices[0].token_ids
        assert tokens == modules_cluster.reference(model, context, MAX_TOKENS), (model, len(context))
        cached = answer.usage.prompt_tokens_details.cached_tokens
        assert ("x-heliostat-prefill" in response.headers) == (turn == 0)
        assert int(response.headers["x-heliostat-cached-tokens"]) == cached
        cross_model = int(response.headers["x-heliostat-cross-model-tokens"])
        if turn:
            assert written - BLOCK < cached <= written
            # All of it, generated tokens too, but for what `home-icarus` itself brought in the first turn.
            assert cross_model == cached - (mine if turn == 4 else 0), (turn, cross_model)
        else:
            mine = (len(context) + len(tokens) - 1) // BLOCK * BLOCK
        # The last token's KV would be written by the next step, which there is not.
        written = len(context) + len(tokens) - 1
        context += (*tokens, *letters(rng, 15))


async def test_a_model_comes_and_goes_while_the_cluster_runs(modules_cluster, client: AsyncOpenAI) -> None:
    url = f"{modules_cluster.url}/heliostat/models"
    adapter = str(EXAMPLES / "modules" / "weights" / "spell-sun")
    body = {"name": "late", "prefill": "tuned", "prefill_adapter": adapter, "decode": "shared"}
    async with httpx.AsyncClient(timeout=60) as http:
        assert (await http.post(url, json=body)).status_code == 201
        samples = heldout("spell")[:8]
        answers = [await chat(client, "late", sample["prompt"]) for sample in samples]
        assert answers == [sample["response"] for sample in samples]
        # `late` was the third in memory for two: whoever had to leave is loaded again, and exact.
        for model in SUN:
            prompt = prompts()[-1]
            assert await generate(client, model, prompt) == modules_cluster.reference(
                model, prompt, MAX_TOKENS
            )
        refused = await http.post(url, json={**body, "name": "wrong", "decode": "readers"})
        assert refused.status_code == 400
        assert (await http.delete(f"{url}/late")).status_code == 200
    with pytest.raises(NotFoundError, match="late"):
        await generate(client, "late", (70,))


@pytest.mark.parametrize("model", [*SUN[1:], *ICARUS[1:]])
async def test_held_out_accuracy_is_that_of_the_card(modules_cluster, served_accuracy, model: str) -> None:
    task = model.removesuffix("-icarus")
    method = "icarus" if model in ICARUS else "sun"
    card = read_card(EXAMPLES / "modules" / "weights" / f"{task}-{method}")
    assert card is not None
    assert abs(await served_accuracy(model, task) - card.metrics["heldout_exact_match"]) <= POINTS


async def chat(client: AsyncOpenAI, model: str, prompt: str) -> str | None:
    answer = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=64
    )
    return answer.choices[0].message.content


def heldout(task: str) -> list[dict[str, str]]:
    lines = (EXAMPLES / "quickstart" / "heldout" / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
