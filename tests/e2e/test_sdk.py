"""Our own client against real engines: installed alone, as an agent author has it."""

import json
import subprocess
from collections.abc import AsyncIterator

import pytest

from heliostat import AsyncClient, Client, Message

pytestmark = pytest.mark.cluster

AGENT = """
import json, sys
from time import perf_counter

started = perf_counter()
from heliostat import Client
imported_s = perf_counter() - started

with Client(sys.argv[1]) as client, client.context() as context:
    called = context.ask("home", "turn my lamp to 40", temperature=0)
    answers = context.ask_all({"base": "reverse lamp", "spell": "spell lamp"}, temperature=0)
    texts = {"home": called.text} | {model: answer.text for model, answer in answers.items()}
    print(json.dumps([texts, imported_s, called.served_by.prefill, "ray" in sys.modules]))
"""


@pytest.fixture
async def sdk(cluster) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(cluster.url) as client:
        yield client


def test_an_agent_in_an_environment_of_its_own(cluster, client_alone) -> None:
    command = [str(client_alone), "-I", "-c", AGENT, cluster.url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    texts, imported_s, prefill, ray = json.loads(done.stdout)
    print(f"imported in {imported_s:.3f} s")  # a figure, no assertion: machines are busy
    assert texts == {"home": "set(lamp,40)", "base": "pmal", "spell": "l#a#m#p"}
    assert prefill.startswith("prefill-home#")
    assert not ray


async def test_a_streamed_answer_is_the_whole_one(sdk) -> None:
    whole = await sdk.chat("spell", [Message("user", "spell lamp")], temperature=0)
    async with sdk.stream_chat("spell", "spell lamp", temperature=0) as stream:
        text = "".join([piece.text async for piece in stream])
    assert text == whole.text == "l#a#m#p"
    assert stream.answer.usage.output_tokens == whole.usage.output_tokens == len(text) + 1
    assert stream.answer.served_by.decode == whole.served_by.decode


async def test_a_context_is_prefilled_once_for_two_models_of_one_prefill_pool(sdk) -> None:
    """`base` and `spell` share the base's prefill pool; what the one brought, the other finds."""
    async with sdk.context(system="remember " * 20) as context:
        first = await context.ask("base", "reverse lamp", temperature=0, max_tokens=4)
        second = await context.ask("spell", "spell lamp", temperature=0, max_tokens=4)
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens >= 160, "whole blocks of 32 tokens of a context of 181"
    assert second.usage.cross_model_tokens == second.usage.cached_tokens, "all of it by the other model"
    assert context.usage.cross_model_tokens == context.usage.cached_tokens == second.usage.cached_tokens


async def test_token_ids_are_a_prompt_too(sdk) -> None:
    as_text = await sdk.complete("base", "reverse lamp", temperature=0, max_tokens=8)
    asked = await sdk.complete(
        "base", "reverse lamp", temperature=0, max_tokens=1, extra_body={"return_token_ids": True}
    )
    ids = asked.raw["choices"][0]["prompt_token_ids"]
    assert (await sdk.complete("base", ids, temperature=0, max_tokens=8)).text == as_text.text


def test_the_page_about_the_client_prints_what_it_says(cluster, run_page) -> None:
    outputs = run_page("docs/client.md", cluster.url)
    assert len(outputs) > 5
    # This cluster has one model more than the quickstart. Tokens that wait for each other come as one piece.
    printed = [said.replace(", cramped", "").replace("|", "") for said, _ in outputs]
    assert printed == [told.replace("|", "") for _, told in outputs]


def test_the_client_that_blocks_gives_the_same(cluster) -> None:
    with Client(cluster.url) as client:
        assert client.chat("home", "turn my lamp to 40", temperature=0).text == "set(lamp,40)"
        with client.stream_chat("home", "turn my lamp to 40", temperature=0) as stream:
            assert stream.read().text == "set(lamp,40)"
        assert {card.id for card in client.models()} == set(cluster.spec.models)
        assert client.status().ready
