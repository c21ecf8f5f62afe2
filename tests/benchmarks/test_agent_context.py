"""Facts about the agents' load and its figures; the servers answer at once, and compute nothing."""

import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.agent_context import DEDICATED, ENGINES, summarize
from benchmarks.agent_context_load import ANSWER_TOKENS, TURNS, Sample, Side, run_agents


class Server:
    """Keeps the messages that it was asked with; half of each prompt was cached."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[dict[str, str]]]] = []
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self.server.make_url("/"))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append((body["model"], body["messages"]))
        length = sum(len(message["content"]) for message in body["messages"])
        usage = {
            "prompt_tokens": length,
            "completion_tokens": ANSWER_TOKENS,
            "total_tokens": length + ANSWER_TOKENS,
            "prompt_tokens_details": {"cached_tokens": length // 2},
        }
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "length"}
        for event in ({"choices": [choice]}, {"choices": [], "usage": usage}):
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


@pytest.fixture
async def servers() -> AsyncIterator[tuple[Server, Server]]:
    pair = Server(), Server()
    for each in pair:
        await each.server.start_server()
    yield pair
    for each in pair:
        await each.server.close()


async def test_a_context_is_the_same_on_all_servers_and_grows_with_every_turn(servers) -> None:
    one, two = servers
    sample = await run_agents(Side("engines", {"a": one.url, "b": two.url}), 1, "seed")
    opening = [[messages[:-1] for _, messages in server.asked] for server in servers]
    assert opening[0] == opening[1]
    assert [len(messages) for messages in opening[0]] == [1, 2, 3][:TURNS]
    assert ({model for model, _ in one.asked}, {model for model, _ in two.asked}) == ({"a"}, {"b"})
    lengths = [sum(len(m["content"]) for m in messages) for s in servers for _, messages in s.asked]
    assert sample.prompt_tokens == sum(lengths)
    assert sample.prefilled == sum(length - length // 2 for length in lengths)
    assert (len(sample.agent_ms), len(sample.ttft_ms)) == (1, 2 * TURNS)


async def test_models_of_one_server_share_a_context(servers) -> None:
    one, _ = servers
    await run_agents(Side("icarus", {"a": one.url, "b": one.url}), 1, "seed")
    first = [messages[:-1] for _, messages in one.asked[:2]]
    assert first[0] == first[1]


def sample(prompt: int, cached: int, ms: float) -> Sample:
    return Sample(1, (ms,), (ms, ms), prompt, cached, 0, 0.0)


def test_ratios_are_medians_of_each_rounds_own() -> None:
    rounds = [
        {
            "icarus": sample(100, 80, 10.0 * slow),
            DEDICATED: sample(100, 20, 20.0 * slow),
            ENGINES: sample(100, 20, 5.0 * slow),
        }
        for slow in (1, 10, 100)
    ]
    metrics = summarize("icarus", rounds)
    assert metrics["icarus_agent_p50_ratio"].value == 0.5
    assert metrics["icarus_agent_p50_to_engines"].value == 2.0
    assert metrics["icarus_prefilled_per_agent_ratio"].value == 0.25
    ours = metrics["icarus_agent_p50"]
    assert (ours.value, ours.peer, metrics["icarus_engines_agent_p50"].value) == (100.0, 200.0, 50.0)
