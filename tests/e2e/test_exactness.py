"""Served tokens equal the two modules run by hand: float32, greedy, every model, alone and together."""

import asyncio
import random

import pytest
from openai import AsyncOpenAI

from heliostat.wire import Role

MODELS = ("base", "home", "mirror", "spell")
BLOCK = 32
MAX_TOKENS = 24
FIRST_LETTER, LAST_LETTER = 60, 90
# Around block borders, inside blocks, the shortest, and some that take several prefill steps.
LENGTHS = (1, 2, 3, 17, 31, 32, 33, 34, 63, 64, 65, 100, 128, 129, 200, 333, 500, 700)

pytestmark = pytest.mark.cluster


def prompts() -> list[tuple[int, ...]]:
    """Twenty prompts. All models get the same ones, so every prefix is shared between models (rule 3)."""
    rng = random.Random(7)
    alone = [tuple(rng.randint(FIRST_LETTER, LAST_LETTER) for _ in range(length)) for length in LENGTHS]
    document = alone[-2]  # 500 tokens that two more prompts begin with
    return [*alone, document + alone[3], document + alone[5]]


async def generate(client: AsyncOpenAI, model: str, prompt: tuple[int, ...], **options: object) -> list[int]:
    answer = await client.completions.create(
        model=model,
        prompt=list(prompt),
        max_tokens=MAX_TOKENS,
        temperature=0,
        extra_body={"return_token_ids": True, "ignore_eos": True, **options},
    )
    return answer.choices[0].token_ids


def test_there_are_twenty_prompts() -> None:
    assert len(set(prompts())) == 20
    assert sum(len(prompt) % BLOCK != 0 for prompt in prompts()) > 10


@pytest.mark.parametrize("model", MODELS)
async def test_every_token_is_exact_one_at_a_time(cluster, client: AsyncOpenAI, model: str) -> None:
    for prompt in prompts():
        assert await generate(client, model, prompt) == cluster.reference(model, prompt, MAX_TOKENS), len(
            prompt
        )


async def test_every_token_is_exact_sixteen_at_once_in_mixed_order(cluster, client: AsyncOpenAI) -> None:
    work = [(model, prompt) for model in MODELS for prompt in prompts()]
    random.Random(11).shuffle(work)
    gate = asyncio.Semaphore(16)

    async def one(model: str, prompt: tuple[int, ...]) -> list[int]:
        async with gate:
            return await generate(client, model, prompt)

    answers = await asyncio.gather(*(one(model, prompt) for model, prompt in work))
    wrong = [
        (model, len(prompt))
        for (model, prompt), tokens in zip(work, answers, strict=True)
        if tokens != cluster.reference(model, prompt, MAX_TOKENS)
    ]
    assert wrong == []


async def test_the_models_differ(cluster, client: AsyncOpenAI) -> None:
    """Otherwise the tests above could not notice one model answering for another."""
    prompt = prompts()[12]
    answers = [cluster.reference(model, prompt, MAX_TOKENS) for model in MODELS]
    assert len({tuple(answer) for answer in answers}) == len(MODELS)


async def test_same_prompt_through_one_prefill_module_then_another(cluster, client: AsyncOpenAI) -> None:
    """Rule 3: the decode pool must not mix KV of two writers."""
    prompt = prompts()[-1]
    for model in ("home", "mirror", "base", "home"):
        assert await generate(client, model, prompt) == cluster.reference(model, prompt, MAX_TOKENS)


async def test_a_next_turn_is_prefilled_again(cluster, client: AsyncOpenAI) -> None:
    """Rule 4: tokens that the decode module wrote are the prefill module's again in the next turn."""
    for model in MODELS:
        context = prompts()[10]
        for _ in range(3):
            answer = await generate(client, model, context)
            assert answer == cluster.reference(model, context, MAX_TOKENS)
            context = context + tuple(answer) + prompts()[3]


async def test_a_shared_prefix_comes_from_the_prefill_replicas_cache(cluster, client: AsyncOpenAI) -> None:
    """PrefillShare: `spell` finds the prefix that `base` computed, and still answers exactly."""
    rng = random.Random(23)
    prompt = tuple(rng.randint(FIRST_LETTER, LAST_LETTER) for _ in range(6 * BLOCK + 5))
    other_end = (*prompt[: 6 * BLOCK], FIRST_LETTER, LAST_LETTER)
    first = await client.completions.create(model="base", prompt=list(other_end), max_tokens=1)
    second = await client.completions.create(
        model="spell",
        prompt=list(prompt),
        max_tokens=MAX_TOKENS,
        temperature=0,
        extra_body={"return_token_ids": True, "ignore_eos": True},
    )
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == 6 * BLOCK
    assert second.choices[0].token_ids == cluster.reference("spell", prompt, MAX_TOKENS)


async def test_preempted_requests_load_their_ticket_again(cluster, client: AsyncOpenAI) -> None:
    """Rule 5: six requests of 130 + 150 tokens do not fit into 40 blocks, so the engine preempts.

    The router reserves room for as much output as the model's last answers had, so they must be short
    first; afterwards it knows better, and the same requests wait for their turn instead.
    """
    rng = random.Random(5)
    work = [tuple(rng.randint(FIRST_LETTER, LAST_LETTER) for _ in range(130)) for _ in range(6)]

    async def one(prompt: tuple[int, ...], max_tokens: int = 150) -> list[int]:
        answer = await client.completions.create(
            model="cramped",
            prompt=list(prompt),
            max_tokens=max_tokens,
            temperature=0,
            extra_body={"return_token_ids": True, "ignore_eos": True},
        )
        return answer.choices[0].token_ids

    expected = [cluster.reference("cramped", prompt, 150) for prompt in work]
    await asyncio.gather(*(one(work[0], 1) for _ in range(40)))
    before = handoffs(cluster)
    assert await asyncio.gather(*map(one, work)) == expected
    assert handoffs(cluster) - before > len(work), "nothing was preempted: this test shows nothing"

    await asyncio.gather(*map(one, work * 5))
    before = handoffs(cluster)
    assert await asyncio.gather(*map(one, work)) == expected
    assert handoffs(cluster) - before == len(work), "room for all of an answer was reserved"


def handoffs(cluster) -> int:
    pools = [pool for pool in cluster.status().pools if (pool.role, pool.name) == (Role.DECODE, "cramped")]
    return sum(replica.copies for pool in pools for replica in pool.replicas)


async def test_n_sequences_of_one_request_read_one_ticket(cluster, client: AsyncOpenAI) -> None:
    prompt = prompts()[13]
    answer = await client.completions.create(
        model="home",
        prompt=list(prompt),
        n=3,
        max_tokens=MAX_TOKENS,
        # Greedy with n > 1 is refused; one candidate is the same thing.
        temperature=1,
        extra_body={"top_k": 1, "return_token_ids": True, "ignore_eos": True},
    )
    expected = cluster.reference("home", prompt, MAX_TOKENS)
    assert [choice.token_ids for choice in answer.choices] == [expected] * 3
