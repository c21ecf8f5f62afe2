"""The committed models do their tasks through the endpoint as well as their provenance says."""

import asyncio
import json
from pathlib import Path

import pytest
from openai import AsyncOpenAI

pytestmark = pytest.mark.cluster

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
MODULES = {"base": "base", "home": "home-prefill", "mirror": "mirror-prefill", "spell": "spell-decode"}
POINTS = 0.02
"""The provenance counts more samples than the committed held-out lines, so two points of tolerance."""


@pytest.mark.parametrize("model", MODULES)
async def test_held_out_accuracy(client: AsyncOpenAI, model: str) -> None:
    provenance = json.loads((QUICKSTART / "provenance.json").read_text())
    expected = provenance["modules"][MODULES[model]]["heldout"]["exact_match"]
    samples = [
        json.loads(line) for line in (QUICKSTART / "heldout" / f"{model}.jsonl").read_text().splitlines()
    ]
    gate = asyncio.Semaphore(16)

    async def right(sample: dict[str, str]) -> bool:
        async with gate:
            answer = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": sample["prompt"]}],
                temperature=0,
                max_tokens=64,
            )
        return answer.choices[0].message.content == sample["response"]

    hits = await asyncio.gather(*map(right, samples))
    assert len(samples) >= 200
    assert abs(sum(hits) / len(samples) - expected) <= POINTS
