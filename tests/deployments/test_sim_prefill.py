import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.engine import EngineConfig
from deployments.sim_engine import SimEngine
from deployments.sim_prefill import KvListener
from heliostat.errors import PrefillFailedError
from heliostat.spec import Family, Pool, SimTiming, Transfer
from heliostat.wire import Adapter, PrefillRequest, PrefillResult, Role, adapted_domain
from router.prefix_index import BLOCK_TOKENS, PrefixIndex
from simulator.virtual_time import run

PROMPT = tuple(range(100, 141))


def prefill_engine(
    timing: SimTiming | None = None, *, fail_containing: int | None = None, on_kv: KvListener | None = None
) -> SimEngine:
    """A prefill replica with that timing."""
    pool = Pool(
        weights="none",
        engine="sim",
        sim=timing or SimTiming(),
        engine_args={"faults": {"fail_prefill_containing": fail_containing}},
    )
    config = EngineConfig(
        Role.PREFILL, "p", pool, Family(base="none"), Transfer(), Path(), "prefill-weights", "prefill#1", "o"
    )
    return SimEngine(config, clock=lambda: asyncio.get_running_loop().time(), on_kv=on_kv)


def prefill_request(prompt: tuple[int, ...] = PROMPT) -> PrefillRequest:
    return PrefillRequest("r", "m", prompt[:-1])


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_release_is_once() -> None:
    prefill = prefill_engine()
    ticket = (await prefill.prefill(prefill_request())).ticket
    assert await prefill.release(ticket.ticket_id)
    assert not await prefill.release(ticket.ticket_id)


def test_prompts_are_computed_one_by_one_and_blocks_are_found_again() -> None:
    async def main() -> None:
        prefill = prefill_engine(SimTiming(prefill_tokens_per_s=1000.0))
        first, other = tuple(range(101)), tuple(range(500, 601))
        like_first = (*range(100 // BLOCK_TOKENS * BLOCK_TOKENS), *range(900, 905), 1)
        ends: list[tuple[float, PrefillResult]] = []

        async def one(prompt: tuple[int, ...]) -> None:
            result = await prefill.prefill(prefill_request(prompt))
            ends.append((now(), result))

        tasks = [asyncio.create_task(one(prompt)) for prompt in (first, other, like_first, first)]
        await asyncio.sleep(0.05)
        load = prefill.load()
        assert (load.running, load.waiting, load.queued_prompt_tokens) == (1, 3, 401)
        assert dict(load.shares) == {"m": 4}
        await asyncio.gather(*tasks)
        assert [round(end, 6) for end, _ in ends] == [0.1, 0.2, 0.205, 0.205]
        assert [result.cached_tokens for _, result in ends] == [0, 0, 96, 100]
        load = prefill.load()
        assert (load.running, load.waiting, load.queued_prompt_tokens, load.shares) == (0, 0, 0, ())
        await prefill.prefill(prefill_request(tuple(range(2000, 4001))))
        assert prefill.load().prefill_tokens_per_s == pytest.approx(1000.0)
        assert load.domain == "prefill-weights"

    run(main())


def test_a_cancelled_prefill_leaves_the_queue() -> None:
    async def main() -> None:
        prefill = prefill_engine(SimTiming(prefill_tokens_per_s=10.0))
        tasks = [asyncio.create_task(prefill.prefill(prefill_request())) for _ in range(3)]
        await asyncio.sleep(1.0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert prefill.load().queued_prompt_tokens == prefill.load().waiting == prefill.load().running == 0

    run(main())


def test_the_prefix_cache_forgets_what_was_used_least_recently() -> None:
    async def main() -> None:
        prefill = prefill_engine(SimTiming(kv_tokens=4 * BLOCK_TOKENS))
        prompts = [tuple(range(base, base + 2 * BLOCK_TOKENS + 1)) for base in (0, 1000, 2000)]
        results = [await prefill.prefill(prefill_request(prompts[at])) for at in (0, 1, 0, 2, 0, 1)]
        assert [result.cached_tokens > 0 for result in results] == [False, False, True, False, True, False]

    run(main())


async def test_one_prompt_is_cached_for_each_adapter_apart() -> None:
    kept: list[int] = []
    prefill = prefill_engine(on_kv=lambda replica, added, removed: kept.extend(added))
    adapters = (None, Adapter("a", "/a"), Adapter("b", "/b"))
    requests = [replace(prefill_request(), adapter=adapter) for adapter in adapters]
    first = [await prefill.prefill(request) for request in requests]
    again = [await prefill.prefill(request) for request in requests]
    assert [result.cached_tokens for result in first] == [0, 0, 0]
    assert [result.cached_tokens for result in again] == [len(PROMPT) - 1] * 3
    domains = [adapted_domain("prefill-weights", adapter) for adapter in adapters]
    assert [result.ticket.domain for result in again] == domains
    assert len({result.ticket.prefix_digest for result in first}) == 3
    names = PrefixIndex(0)
    assert kept == [block for domain in domains for block in names.hashes(domain, PROMPT[:-1])]


async def test_an_adapter_is_known_by_its_content_not_by_its_path() -> None:
    prefill = prefill_engine()
    await prefill.prefill(replace(prefill_request(), adapter=Adapter("a", "/a")))
    moved = await prefill.prefill(replace(prefill_request(), adapter=Adapter("a", "/elsewhere")))
    changed = await prefill.prefill(replace(prefill_request(), adapter=Adapter("b", "/a")))
    assert (moved.cached_tokens, changed.cached_tokens) == (len(PROMPT) - 1, 0)


async def test_listeners_hear_which_blocks_come_and_go() -> None:
    kept: set[int] = set()

    def on_kv(replica: str, added: Sequence[int], removed: Sequence[int]) -> None:
        assert kept.isdisjoint(added)
        assert kept.issuperset(removed)
        kept.update(added)
        kept.difference_update(removed)

    prefill = prefill_engine(SimTiming(kv_tokens=4 * BLOCK_TOKENS), on_kv=on_kv)
    prompts = [tuple(range(base, base + 2 * BLOCK_TOKENS + 1)) for base in (0, 1000, 2000)]
    for prompt in prompts:
        await prefill.prefill(prefill_request(prompt))
    names = PrefixIndex(0)
    assert kept == {block for prompt in prompts[1:] for block in names.hashes("prefill-weights", prompt[:-1])}


async def test_a_prefill_fails_on_purpose() -> None:
    prefill = prefill_engine(fail_containing=120)
    with pytest.raises(PrefillFailedError):
        await prefill.prefill(prefill_request())
    await prefill.prefill(prefill_request((1, 2, 3)))
