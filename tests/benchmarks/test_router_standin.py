"""Facts about the engine that costs nothing."""

import asyncio

import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreRequest

from benchmarks.router_standin import StandInCore


def request(
    name: str, *, max_tokens: int = 2, kind: RequestOutputKind = RequestOutputKind.DELTA
) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id=name,
        prompt_token_ids=[7, 8],
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=max_tokens, output_kind=kind),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


async def step(core: StandInCore) -> dict[str, list[int]]:
    outputs = await core.get_output_async()
    return {output.request_id: output.new_token_ids for output in outputs.outputs}


async def test_a_step_gives_every_request_one_token() -> None:
    core = StandInCore()
    await core.add_request_async(request("a"))
    await core.add_request_async(request("b"))
    assert await step(core) == {"a": [7], "b": [7]}


async def test_the_next_token_waits_until_the_last_one_is_taken() -> None:
    core = StandInCore()
    await core.add_request_async(request("a"))
    await core.add_request_async(request("b"))
    await step(core)
    core.taken("b")
    assert await step(core) == {"b": [8]}


async def test_a_request_ends_after_its_last_token() -> None:
    core = StandInCore()
    await core.add_request_async(request("a", max_tokens=1))
    outputs = await core.get_output_async()
    assert outputs.outputs[0].finished
    waiting = asyncio.ensure_future(core.get_output_async())
    await asyncio.sleep(0)
    await core.add_request_async(request("b"))
    assert [output.request_id for output in (await waiting).outputs] == ["b"]


@pytest.mark.parametrize("step_s", [0.0, 1e-6])
async def test_what_is_not_streamed_or_has_a_beat_waits_for_nobody(step_s: float) -> None:
    core = StandInCore(step_s)
    kind = RequestOutputKind.DELTA if step_s else RequestOutputKind.FINAL_ONLY
    await core.add_request_async(request("a", kind=kind))
    assert [await step(core), await step(core)] == [{"a": [7]}, {"a": [8]}]


async def test_an_aborted_request_gets_no_more_tokens() -> None:
    core = StandInCore()
    await core.add_request_async(request("a"))
    await core.add_request_async(request("b"))
    await core.abort_requests_async(["a"])
    assert await step(core) == {"b": [7]}
