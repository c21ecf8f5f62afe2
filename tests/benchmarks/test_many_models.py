"""Facts about the loads, specs and results of many models; no engine."""

import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks import many_models, many_models_agents, many_models_load
from benchmarks.many_models_family import NOT_KEYS_AND_VALUES, RANK, TOKENIZER, Family, make_adapter
from benchmarks.many_models_plain import flags
from benchmarks.many_models_sessions import (
    ANSWER_TOKENS,
    CONTEXT_TOKENS,
    NEW_TOKENS,
    TURNS,
    Sample,
    Turn,
    converse_all,
    draw_sessions,
)
from benchmarks.many_models_specs import agents_spec, sun_spec, write_spec
from benchmarks.report import Metric, make_report, write_json
from heliostat.errors import HeliostatError
from heliostat.specfile import load_spec
from kvtransfer.adapter import read_adapter


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp("family")
    names = ("m000", "m001", "m002")
    adapters = {name: make_adapter(folder / name, i, NOT_KEYS_AND_VALUES) for i, name in enumerate(names)}
    return Family(TOKENIZER, adapters)


def test_adapters_differ_and_leave_keys_and_values_alone(family: Family) -> None:
    read = [read_adapter(path) for path in family.adapters.values()]
    assert len({adapter.digest for adapter in read}) == 3
    assert {adapter.rank for adapter in read} == {RANK}
    assert read[0].targets == {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_sun_adapts_the_prefill_pool_alone(family: Family, tmp_path: Path) -> None:
    spec = load_spec(write_spec(sun_spec(family), tmp_path / "spec.yaml"))
    assert [pool.takes_adapters for pool in spec.prefill.values()] == [True]
    assert [pool.takes_adapters for pool in spec.decode.values()] == [False]
    assert {model.prefill_adapter for model in spec.models.values()} == set(family.adapters)


def test_each_way_to_serve_agents_has_pools_of_its_own(family: Family, tmp_path: Path) -> None:
    path = write_spec(agents_spec(family, many_models.WAYS), tmp_path / "spec.yaml")
    spec = load_spec(path)
    assert {name: pool.icarus for name, pool in spec.decode.items()} == {
        "icarus": True,
        "prefillshare": False,
    }
    assert not any(pool.takes_adapters for pool in spec.prefill.values())
    assert all(model.prefill == model.decode for model in spec.models.values())
    assert len(spec.models) == 2 * len(family.adapters)


def test_the_peer_names_every_adapter(family: Family) -> None:
    line = flags(family)
    listed = line[line.index("--lora-modules") + 1 :]
    assert listed == [f"{name}={path}" for name, path in family.adapters.items()]


def test_models_are_asked_in_turn_and_no_prompt_twice(family: Family) -> None:
    load = many_models_load.draw(family, 7, seed="0", first=2)
    assert [request.model for request in load] == ["m002", "m000", "m001"] * 2 + ["m002"]
    assert len({request.prompt[:32] for request in load}) == 7


def test_every_way_gets_the_same_ids_and_another_model_each_turn() -> None:
    left, right = (draw_sessions(models, 4, seed="0") for models in (("a", "b"), ("x", "y")))
    assert [session.messages for session in left] == [session.messages for session in right]
    assert left[0].models == ("a", "b") * (TURNS // 2)
    assert left[1].models[0] == "b"
    assert len({session.messages[0] for session in left}) == 4


class Engine:
    """Answers with a fixed id, and takes all of a prompt as cached but its last ten tokens."""

    def __init__(self, answer_tokens: int = ANSWER_TOKENS) -> None:
        self.answer_tokens = answer_tokens
        self.prompts: list[list[int]] = []

    async def complete(self, request: web.Request) -> web.Response:
        prompt = (await request.json())["prompt"]
        self.prompts.append(prompt)
        usage = {
            "prompt_tokens": len(prompt),
            "prompt_tokens_details": {"cached_tokens": len(prompt) - 10},
        }
        return web.json_response({"choices": [{"token_ids": [7] * self.answer_tokens}], "usage": usage})


async def serve(engine: Engine) -> AsyncGenerator[str, None]:
    app = web.Application()
    app.router.add_post("/v1/completions", engine.complete)
    async with TestServer(app) as server:
        yield str(server.make_url(""))


async def test_a_turn_asks_with_the_last_prompt_its_answer_and_the_new_message() -> None:
    engine = Engine()
    async for url in serve(engine):
        session = draw_sessions(["a", "b"], 1, seed="0")
        sample = await converse_all(url, session, at_a_time=2)
    first, second = engine.prompts[:2]
    assert len(first) == CONTEXT_TOKENS
    assert second == [*first, *[7] * ANSWER_TOKENS, *session[0].messages[1]]
    assert len(engine.prompts[-1]) == CONTEXT_TOKENS + (TURNS - 1) * (ANSWER_TOKENS + NEW_TOKENS)
    assert sample.prefilled_tokens == 10
    assert sample.hit_ratio == 1 - 10 * TURNS / sum(map(len, engine.prompts))


async def test_an_answer_of_another_length_ends_the_run() -> None:
    async for url in serve(Engine(ANSWER_TOKENS - 1)):
        with pytest.raises(HeliostatError, match="model a: 23 tokens came"):
            await converse_all(url, draw_sessions(["a", "b"], 2, seed="0"), at_a_time=1)


async def test_nobody_at_the_port_is_an_error_of_ours() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(HeliostatError, match="model a: ClientConnectorError"):
            await converse_all(url, draw_sessions(["a", "b"], 1, seed="0"), at_a_time=1)


def agents(latency_ms: float, cached: int) -> Sample:
    return Sample((Turn(latency_ms, 400, cached, ANSWER_TOKENS),) * 8, wall_s=2.0)


def test_agents_metrics_hold_a_way_beside_plain_and_say_which_goals_are_missed() -> None:
    rounds = [{"icarus": agents(50.0, 376), "plain": agents(40.0, 200)}] * 3
    metrics = many_models_agents.summarize(4, rounds)
    assert metrics["agents_4_icarus_turn_p95_ratio"].value == 1.25
    assert metrics["agents_4_icarus_turn_p95_ratio"].met is False
    assert metrics["agents_4_icarus_prefilled_per_turn_ratio"].met is True
    assert metrics["agents_4_icarus_prefilled_per_turn"].value == 24
    assert metrics["agents_4_icarus_prefilled_per_turn"].peer == 200
    assert metrics["agents_4_icarus_hit_ratio"].value == 0.94
    assert metrics["agents_4_icarus_turns_per_s"].value == 4
    assert not any("_plain_" in key for key in metrics)


def models(tokens: int) -> many_models_load.Sample:
    return many_models_load.Sample(tokens, 2.0, (10.0, 30.0), (5.0,), 2.0, 3.0, 0.1)


def test_models_metrics_have_a_goal_from_32_models_on() -> None:
    pairs = [many_models_load.Pair(models(180), models(200))]
    few, many = (many_models_load.summarize(count, pairs) for count in (8, 32))
    assert few["models_8_tok_per_s_ratio"].met is None
    assert many["models_32_tok_per_s_ratio"].met is False
    assert many["models_32_tok_per_s"].value == 90
    assert many["models_32_tok_per_s"].peer == 100
    assert many["models_32_ttft_p50"].value == 20


def test_one_part_keeps_the_other_of_the_same_commit_and_refuses_another_one(tmp_path: Path) -> None:
    path = tmp_path / "many_models.json"
    figure = Metric(value=1.0, unit="ratio", better="higher")
    old = make_report(3, {"models_2_x": figure, "agents_2_x": figure})
    write_json(old, path)
    assert many_models.kept(path, "models", old) == old.metrics
    assert many_models.kept(path, None, old) == {}
    with pytest.raises(HeliostatError, match="run both parts"):
        many_models.kept(path, "models", old.model_copy(update={"commit": "another"}))
