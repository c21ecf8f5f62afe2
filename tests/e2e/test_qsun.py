"""QSUN served: prefill adapters in front of a 4-bit decode pool, in 16 bits, as the CPU's kernels want it.

Two tokens whose logits differ by less than 16 bits resolve are equally right. So every served token must be
the reference's best one, up to TIE; the reference multiplies in float32 with the values that the kernel has.
"""

import random
from functools import cache
from pathlib import Path

import pytest
import torch
from openai import AsyncOpenAI
from transformers import PreTrainedModel

from finetune.cache_conditioned import collate, response_logits
from finetune.quantize_load import load_dequantized
from finetune.reference import load_adapted, load_module
from kvtransfer.card import read_card

pytestmark = pytest.mark.modules

EXAMPLES = Path(__file__).parents[2] / "examples"
BASE = EXAMPLES / "quickstart" / "weights" / "base"
WEIGHTS = EXAMPLES / "modules" / "weights"
MODELS = ("base", "home", "mirror")
MAX_TOKENS = 24
TIE = 0.1
FIRST_LETTER, LAST_LETTER = 60, 90
LENGTHS = (2, 33, 64, 200)
POINTS = 0.03


@cache
def writer(model: str) -> PreTrainedModel:
    return load_module(BASE) if model == "base" else load_adapted(BASE, WEIGHTS / f"{model}-qsun")


@cache
def quantized() -> PreTrainedModel:
    return load_dequantized(WEIGHTS / "base-int4")


@torch.inference_mode()
def worst_gap(
    prefill: PreTrainedModel, decode: PreTrainedModel, prompt: tuple[int, ...], tokens: list[int]
) -> float:
    """By how much the reference prefers another token, at the worst position."""
    logits = response_logits(prefill, decode, collate([(prompt, tokens)], 0))[0]
    chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    return float((logits.max(dim=1).values - chosen).max())


async def generate(client: AsyncOpenAI, model: str, prompt: tuple[int, ...]) -> list[int]:
    answer = await client.completions.create(
        model=model,
        prompt=list(prompt),
        max_tokens=MAX_TOKENS,
        temperature=0,
        extra_body={"return_token_ids": True, "ignore_eos": True},
    )
    return answer.choices[0].token_ids


@pytest.mark.parametrize("model", MODELS)
async def test_every_token_is_the_references(qsun_cluster, client: AsyncOpenAI, model: str) -> None:
    rng = random.Random(31)
    for length in LENGTHS:
        prompt = tuple(rng.randint(FIRST_LETTER, LAST_LETTER) for _ in range(length))
        tokens = await generate(client, model, prompt)
        assert worst_gap(writer(model), quantized(), prompt, tokens) < TIE, length
        others = [other for other in MODELS if other != model] if length > 2 else []
        for other in others:
            assert worst_gap(writer(other), quantized(), prompt, tokens) > TIE, "this test could not fail"


async def test_over_several_turns(qsun_cluster, client: AsyncOpenAI) -> None:
    context = tuple(random.Random(3).randint(FIRST_LETTER, LAST_LETTER) for _ in range(50))
    for model in ("home", "mirror", "base", "home"):
        tokens = await generate(client, model, context)
        assert worst_gap(writer(model), quantized(), context, tokens) < TIE
        context += (*tokens, FIRST_LETTER, LAST_LETTER)


@pytest.mark.parametrize("model", MODELS[1:])
async def test_held_out_accuracy_is_that_of_the_card(qsun_cluster, served_accuracy, model: str) -> None:
    card = read_card(WEIGHTS / f"{model}-qsun")
    assert card is not None
    assert abs(await served_accuracy(model, model) - card.metrics["heldout_exact_match"]) <= POINTS
