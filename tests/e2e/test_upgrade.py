"""Real engines get new weights on both sides of a model: every token before and after is exact.

Pools of one replica have none while the new one starts; a stream that is open ends as it began all the same.
"""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest
from openai import APIStatusError, AsyncOpenAI

from heliostat.specfile import load_spec
from heliostat.status import ClusterStatus
from kvtransfer.contract import read_module

pytestmark = pytest.mark.nodes

WEIGHTS = Path(__file__).parents[2] / "examples" / "quickstart" / "weights"
SPEC = Path(__file__).parent / "upgrade.yaml"
ROLL_S = 300
LONG = 1500


def prompts() -> list[tuple[int, ...]]:
    rng = random.Random("upgrade")
    return [tuple(rng.randint(60, 90) for _ in range(length)) for length in (1, 2, 33, 64, 100, 200)]


def upgraded(folder: Path) -> Path:
    """The same spec with the modules of another pair, none of which was there before."""
    text = SPEC.read_text().replace("weights/home-prefill", "weights/mirror-prefill")
    text = text.replace(
        "d: {weights: ../../examples/quickstart/weights/base", "d: {weights: WEIGHTS/spell-decode"
    )
    text = text.replace("WEIGHTS", str(WEIGHTS)).replace("../../examples/quickstart/weights", str(WEIGHTS))
    spec = folder / "upgraded.yaml"
    spec.write_text(text)
    return spec


async def answers(client: AsyncOpenAI, max_tokens: int = 24) -> list[list[int]]:
    return [await answer(client, prompt, max_tokens) for prompt in prompts()]


async def answer(client: AsyncOpenAI, prompt: tuple[int, ...], max_tokens: int) -> list[int]:
    got = await client.completions.create(
        model="m",
        prompt=list(prompt),
        max_tokens=max_tokens,
        temperature=0,
        extra_body={"return_token_ids": True, "ignore_eos": True},
    )
    return got.choices[0].token_ids


async def rolled(cluster, weights: set[str]) -> None:
    """Until the replicas have these weights, and none others are there."""

    def running() -> ClusterStatus:
        return cluster.status()

    async with asyncio.timeout(ROLL_S):
        while True:
            try:
                status = await asyncio.to_thread(running)
            except ValueError:  # between two routers
                continue
            if status.ready and {each.weights for pool in status.pools for each in pool.replicas} == weights:
                return


async def test_new_weights_on_both_sides(
    upgrade_cluster, redeploy, client: AsyncOpenAI, tmp_path: Path
) -> None:
    spec = upgraded(tmp_path)
    old, new = upgrade_cluster, replace(upgrade_cluster, spec=load_spec(spec))
    expected = [[each.reference("m", prompt, 24) for prompt in prompts()] for each in (old, new)]
    assert all(before != after for before, after in zip(*expected, strict=True)), (
        "the pairs can be told apart"
    )
    assert await answers(client) == expected[0]

    prompt = prompts()[-1]
    stream = asyncio.create_task(answer(client, prompt, LONG))
    await asyncio.to_thread(redeploy, old.status().pools[0].replicas[0].pid, spec)
    refused = 0
    while not stream.done():
        try:
            got = await answer(client, prompt, 24)
        except APIStatusError as error:
            assert error.status_code == 503, "a pool has no replica, or the two do not fit yet"
            refused += 1
        else:
            assert got in (expected[0][-1], expected[1][-1]), "never a mix"
    assert (await stream) == old.reference("m", prompt, LONG), "a stream ends as it began"

    pools = new.spec.pools().values()
    await rolled(new, {read_module(Path(pool.weights)).weights for pool in pools})
    assert await answers(client) == expected[1]
