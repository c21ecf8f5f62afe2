"""Models that come and go while the cluster serves: every router knows, and nobody else notices."""

import argparse
import json
import struct
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.models import models_command
from cluster.models_args import add_arguments
from deployments.sim_tokens import DEFAULT_VOCAB, extend, first_state, next_token
from heliostat.errors import HeliostatError
from heliostat.wire import adapted_domain
from kvtransfer.adapter import read_adapter
from kvtransfer.contract import kv_domain, read_module

pytestmark = pytest.mark.sim

PROMPT = list(range(50, 90))
MODELS = "/heliostat/models"
ROUTERS = 2


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter on disk, with one tensor of one number."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return folder


def expected(sim, adapter: Path, num_tokens: int) -> list[int]:
    """With the adapter on the prefill module: its KV is another one (rule 3)."""
    spec = sim.cluster.spec
    home, base = (
        kv_domain(read_module(Path(weights)), spec.family.dtype)
        for weights in (spec.prefill["home"].weights, spec.decode["base"].weights)
    )
    state = first_state(PROMPT, adapted_domain(home, read_adapter(adapter).reference), base, 0)
    tokens: list[int] = []
    for _ in range(num_tokens):
        tokens.append(next_token(state, DEFAULT_VOCAB))
        state = extend(state, tokens[-1])
    return tokens


async def by_router(sim, without: frozenset[int] = frozenset()) -> dict[int, set[str]]:
    """The models that each router serves, by its pid, when it is asked for the first time.

    HAProxy gives every request to the next router, whatever its connection: only an answer that holds both
    says who knows what. Waits for as many routers as there are, not counting those `without`.
    """
    served: dict[int, set[str]] = {}

    async def all_asked() -> bool:
        try:
            status = (await sim.http.get("/status")).json()
            served.setdefault(
                status["router"]["pid"], {name for pool in status["pools"] for name in pool["models"]}
            )
        except (httpx.HTTPError, KeyError, ValueError):
            return False  # asked one that is dead
        return len(served.keys() - without) >= ROUTERS

    await sim.until(all_asked, 120)
    return served


async def served_names(sim, path: str) -> set[str]:
    answer = (await sim.http.get(path)).json()
    return (
        {each["id"] for each in answer["data"]} if "data" in answer else {m["name"] for m in answer["models"]}
    )


def command(sim, *words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return models_command(parser.parse_args([*words, "--url", sim.cluster.url]))


async def test_an_added_model_is_there_on_every_router_at_once(sim, adapter: Path) -> None:
    body = {"name": "late", "prefill": "home", "decode": "base", "prefill_adapter": str(adapter)}
    added = await sim.http.post(MODELS, json=body)
    assert added.status_code == httpx.codes.CREATED, added.text
    tokens = expected(sim, adapter, 10)
    assert tokens != sim.expected("home", PROMPT, 10), "the adapter makes a difference"

    for _ in range(2 * ROUTERS):  # in turns
        assert "late" in await served_names(sim, "/v1/models")
        assert "late" in await served_names(sim, MODELS)
        answer = await sim.post(model="late", prompt=PROMPT, max_tokens=10)
        assert answer.json()["choices"][0]["token_ids"] == tokens
    assert all("late" in names for names in (await by_router(sim)).values())
    again = await sim.http.post(MODELS, json=body)
    assert again.status_code == httpx.codes.CONFLICT
    assert again.json()["error"]["type"] == "ConflictError"

    removed = await sim.http.delete(f"{MODELS}/late")
    assert removed.status_code == httpx.codes.OK, removed.text

    for _ in range(2 * ROUTERS):
        assert "late" not in await served_names(sim, "/v1/models")
        assert (await sim.post(model="late", prompt=PROMPT)).status_code == httpx.codes.NOT_FOUND
    assert not any("late" in names for names in (await by_router(sim)).values())
    assert (await sim.http.delete(f"{MODELS}/late")).status_code == httpx.codes.NOT_FOUND


async def test_a_stream_outlives_its_model(sim, adapter: Path) -> None:
    body = {"name": "short", "prefill": "home", "decode": "base", "prefill_adapter": str(adapter)}
    assert (await sim.http.post(MODELS, json=body)).is_success
    stream = await sim.open(model="short", prompt=PROMPT, max_tokens=600)
    assert (await sim.http.delete(f"{MODELS}/short")).is_success
    assert not stream.finished, "it still runs"
    await stream.read()
    assert stream.done and stream.error is None
    assert stream.tokens == {0: expected(sim, adapter, 600)}


async def test_a_router_that_starts_again_knows_what_came_and_went(sim, adapter: Path) -> None:
    body = {"name": "kept", "prefill": "home", "decode": "base", "decode_adapter": str(adapter)}
    assert (await sim.http.post(MODELS, json=body)).is_success
    assert (await sim.http.delete(f"{MODELS}/stalled")).is_success

    before = await by_router(sim)
    victim = min(before)
    psutil.Process(victim).kill()
    after = await by_router(sim, frozenset({victim}))
    assert after.keys() - before.keys(), "one of them has just started"
    for names in after.values():
        assert "kept" in names and "stalled" not in names
    spec = {"name": "stalled", "prefill": "home", "decode": "stalled"}
    assert (await sim.http.post(MODELS, json=spec)).is_success
    assert (await sim.http.delete(f"{MODELS}/kept")).is_success


async def test_a_model_that_does_not_fit_is_refused_and_changes_nothing(sim, adapter: Path) -> None:
    fine = {"name": "bad", "prefill": "home", "decode": "base"}
    before = (await sim.http.get(MODELS)).json()
    for changed, reason in (
        ({"decode": "bse"}, "did you mean `base`?"),
        ({"name": "Not A Name"}, "lower-case letters"),
        ({"decode": "narrow", "decode_adapter": str(adapter)}, "lora: {}"),
        ({"decode_adapter": str(adapter / "nowhere")}, "no such directory"),
        ({"decode_adapter": str(adapter.parent)}, "adapter_config.json"),
    ):
        answer = await sim.http.post(MODELS, json={**fine, **changed})
        assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
        assert reason in answer.json()["error"]["message"]
    assert (await sim.http.get(MODELS)).json() == before


async def test_the_command_adds_lists_and_removes(sim, adapter: Path, capsys) -> None:
    add = ["add", "told", "--prefill", "home", "--decode", "base", "--decode-adapter", str(adapter)]
    assert command(sim, *add) == 0
    assert "models:\n  told: {prefill: home, decode: base, decode_adapter: told}" in capsys.readouterr().out
    assert command(sim, "list", "--json") == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert listed["told"]["origin"] == "added" and listed["home"]["origin"] == "spec"
    with pytest.raises(HeliostatError, match="exists already"):
        command(sim, *add)
    assert command(sim, "remove", "told") == 0
