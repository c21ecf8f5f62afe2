import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from heliostat.wire import Load
from router.admission import Slot
from simulator.engine.engine import Engine
from simulator.engine.job import Job
from simulator.engine.profile import Profile
from simulator.timing.base import Chunk, StepLine
from simulator.virtual_time import run

BLOCK = 10


class Easy:
    """A decode step takes 10 ms, a new token of a prompt 1 ms; `seen` are the steps that had chunks."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[Chunk]]] = []

    def decode_line(self, requests: int) -> StepLine:
        return StepLine(10.0, 0.0)

    def step_ms(self, requests: int, context_tokens: int, chunks: Sequence[Chunk]) -> float:
        self.seen.append((requests, list(chunks)))
        return (10.0 if requests else 0.0) + sum(chunk.new_tokens for chunk in chunks)

    def handoff_ms(self, num_bytes: int) -> float:
        return 0.0


def _profile(timing: Easy | None = None) -> Profile:
    return Profile(timing or Easy(), 10_000, 1, 8, 100, BLOCK, True)


def _job(prompt: int, output: int, blocks: Sequence[int] = (), kept: Sequence[int] = ()) -> Job:
    done = asyncio.get_running_loop().create_future()
    return Job("m", prompt, output, tuple(blocks), done, tuple(kept))


def _leg(prompt: int, output: int, load_s: float = 0.001) -> Job:
    """A decode leg whose KV needs so long."""
    job = _job(prompt, output)
    job.fetch = lambda begin_s, _: begin_s + load_s
    return job


async def _all(engine: Engine, *jobs: Job) -> None:
    for job in jobs:
        engine.submit(job)
    await asyncio.gather(*(job.done for job in jobs))


def test_who_comes_during_a_step_joins_at_its_end() -> None:
    async def main() -> tuple[float, float]:
        engine, first, second = Engine("e", _profile()), _leg(10, 10, 0.0), _leg(10, 2, 0.003)
        engine.submit(first)
        # In the third step; loading begins at its end, 0.03, and is over in the fourth one.
        asyncio.get_running_loop().call_at(0.025, engine.submit, second)
        await asyncio.gather(first.done, second.done)
        return second.first_s, second.end_s

    assert run(main()) == pytest.approx((0.05, 0.06))


def test_no_more_than_max_running_are_inside_and_who_came_first_goes_first() -> None:
    async def main() -> list[float]:
        engine = Engine("e", replace(_profile(), max_running=2))
        jobs = [_leg(10, output, 0.001) for output in (10, 20, 10, 10)]
        for job in jobs:
            engine.submit(job)
        await asyncio.sleep(0.015)
        assert (engine.load().running, engine.load().waiting) == (2, 2)
        await asyncio.gather(*(job.done for job in jobs))
        return [job.end_s for job in jobs]

    # The second joins a step later. The third loads when the first has ended and joins a step later; when
    # it ends, the second does, too, and the fourth finds nobody to wait for.
    assert run(main()) == pytest.approx([0.101, 0.211, 0.211, 0.312])


def test_chunks_get_what_the_decode_rows_leave_of_the_budget_first_come_first_served() -> None:
    async def main() -> list[tuple[int, list[Chunk]]]:
        timing = Easy()
        engine = Engine("e", replace(_profile(timing), max_batched_tokens=50))
        legs = [_leg(10, 20, 0.0) for _ in range(2)]
        for job in legs:
            engine.submit(job)
        await asyncio.sleep(0.005)
        jobs = [_job(70, 1), _job(60, 1)]
        await _all(engine, *jobs)
        assert jobs[0].end_s < jobs[1].end_s
        return timing.seen

    assert run(main()) == [
        (2, [Chunk(48, 0)]),
        (2, [Chunk(22, 48), Chunk(26, 0)]),
        (2, [Chunk(34, 26)]),
    ]


def test_a_cached_prefix_is_not_computed_again_but_one_token_at_least_is() -> None:
    async def main() -> list[int]:
        timing = Easy()
        engine = Engine("e", _profile(timing))
        jobs = [_job(35, 1, (1, 2, 3)), _job(35, 1, (1, 2, 9)), _job(30, 1, (1, 2, 3))]
        for job in jobs:
            await _all(engine, job)
        assert [chunks for _, chunks in timing.seen] == [[Chunk(35, 0)], [Chunk(15, 20)], [Chunk(1, 29)]]
        return [job.cached_tokens for job in jobs]

    assert run(main()) == [0, 20, 29]


def test_an_answer_that_is_kept_is_cached_for_the_next_prompt() -> None:
    async def main() -> int:
        engine = Engine("e", _profile())
        await _all(engine, _job(15, 10, (1,), (1, 2)))
        after = _job(30, 1, (1, 2, 3))
        await _all(engine, after)
        return after.cached_tokens

    assert run(main()) == 20


def test_without_a_prefix_cache_nothing_is_found() -> None:
    async def main() -> int:
        engine = Engine("e", replace(_profile(), keeps_prefixes=False))
        jobs = [_job(35, 1, (1, 2, 3)) for _ in range(2)]
        for job in jobs:
            await _all(engine, job)
        return jobs[1].cached_tokens

    assert run(main()) == 0


def test_two_with_the_same_prefix_take_its_room_once() -> None:
    async def main() -> float:
        engine = Engine("e", _profile())
        await _all(engine, _job(100, 0, range(10)))
        for _ in range(2):
            engine.submit(_job(105, 100, range(10)))
        await asyncio.sleep(0.006)
        return engine.load().kv_use * 10_000

    # The shared 100 tokens, 5 of each of their own, and the first one's first output.
    assert run(main()) == pytest.approx(100 + 2 * 5 + 1)


def test_kv_events_tell_exactly_what_the_cache_holds() -> None:
    async def main() -> int:
        known: set[int] = set()
        dropped = 0

        def hear(replica: str, added: Sequence[int], removed: Sequence[int]) -> None:
            nonlocal dropped
            assert known >= set(removed)
            known.difference_update(removed)
            assert not known & set(added)
            known.update(added)
            dropped += len(removed)

        engine = Engine("e", replace(_profile(), kv_tokens=300), on_kv=hear)
        for number in range(60):
            group = number * number % 7
            names = [100 * group + place for place in range(4 + number % 5)]
            job = _job(BLOCK * len(names), number % 3 * 10, names, [*names, 10_000 + number])
            if job.output_tokens == 0:
                job.kept = ()
            engine.submit(job)
            if number % 2:
                continue
            await job.done
            # What a probe finds cached is what the events say.
            for other in range(7):
                chain = [100 * other + place for place in range(9)]
                heard = next((place for place, name in enumerate(chain) if name not in known), len(chain))
                assert engine.cached_tokens(chain) == heard * engine.profile.block_tokens
        return dropped

    assert run(main()) > 20


def test_a_load_in_the_middle_of_a_run_counts_what_has_grown() -> None:
    async def main() -> list[Load]:
        loop = asyncio.get_running_loop()
        engine = Engine("e", replace(_profile(), kv_tokens=1000, max_running=2))
        for leg in (_leg(100, 50, 0.0), _leg(200, 50, 0.0), _leg(300, 50, 0.0)):
            engine.submit(leg)
        loads = []
        for at_s in (0.0005, 0.0255, 0.4995):
            await asyncio.sleep(at_s - loop.time())
            loads.append(engine.load())
        return loads

    loads = run(main())
    assert [load.context_tokens for load in loads] == [100, 300 + 3, 300 + 97]
    assert [load.running for load in loads] == [1, 2, 2]
    assert [load.waiting for load in loads] == [2, 1, 1]
    assert [load.kv_use for load in loads] == pytest.approx([0.3, 0.303, 0.397])
    assert loads[0].sequence < loads[1].sequence < loads[2].sequence
    assert (loads[0].max_running, loads[0].kv_tokens) == (2, 1000)


def test_queued_tokens_are_the_uncached_prompts_until_they_are_computed() -> None:
    async def main() -> list[int]:
        engine, loop = Engine("e", _profile()), asyncio.get_running_loop()
        await _all(engine, _job(50, 0, range(5)))
        begin_s, queued = loop.time(), []
        for prompt in (55, 30):
            engine.submit(_job(prompt, 0, range(prompt // BLOCK)))
        engine.submit(_leg(500, 1))
        for at_s in (0.0, 0.0055, 0.02):
            await asyncio.sleep(begin_s + at_s - loop.time())
            queued.append(engine.load().queued_prompt_tokens)
        return queued

    # 5 of the first, 1 of the second, which is cached whole; a decode leg computes nothing.
    assert run(main()) == [6, 1, 0]


def test_progress_adds_up_to_the_output_tokens() -> None:
    served: list[int] = []

    async def main() -> int:
        engine = Engine("e", _profile())
        job = _leg(10, 20, 0.0)
        job.slot = Slot("m", "d", 10, 20, lambda slot, tokens: served.append(tokens))
        engine.submit(job)
        for _ in range(4):
            await asyncio.sleep(0.035)
            engine.report_progress()
        await job.done
        engine.report_progress()
        return job.output_tokens

    assert run(main()) == sum(served)
    assert served == [3, 4, 3, 4, 6]


def test_the_newest_gives_way_when_the_kv_is_full_and_loads_again() -> None:
    async def main() -> tuple[list[int], int, float]:
        engine = Engine("e", replace(_profile(), kv_tokens=100, keeps_prefixes=False))
        fetched: list[int] = []

        def fetch(begin_s: float, missing: int) -> float:
            fetched.append(missing)
            return begin_s + 0.001

        jobs = [_job(40, 30), _job(40, 30)]
        for job in jobs:
            job.fetch = fetch
        await _all(engine, *jobs)
        assert [job.preempted for job in jobs] == [0, 1]
        assert jobs[1].first_s == pytest.approx(0.021)  # what it was before it gave way
        assert engine.idle
        return fetched, engine.preemptions, engine.load().kv_use

    assert run(main()) == ([40, 40, 40], 1, 0.0)


def test_a_kv_that_comes_during_a_run_does_not_take_what_the_batch_has_grown_into() -> None:
    async def main() -> float:
        engine, loop = Engine("e", replace(_profile(), kv_tokens=1000)), asyncio.get_running_loop()
        grown, late = _leg(100, 600, 0.0), _leg(500, 10, 0.001)
        engine.submit(grown)
        loop.call_at(4.505, engine.submit, late)  # 550 tokens are taken by then
        await asyncio.gather(grown.done, late.done)
        assert grown.end_s == pytest.approx(6.0)
        return late.first_s

    assert run(main()) == pytest.approx(6.0 + 0.001 + 0.01)


def test_a_run_ends_where_the_kv_that_came_meanwhile_leaves_no_room() -> None:
    async def main() -> list[int]:
        engine, loop = Engine("e", replace(_profile(), kv_tokens=1000)), asyncio.get_running_loop()
        grows, loads = _leg(100, 600, 0.0), _leg(500, 10, 3.0)
        engine.submit(grows)
        loop.call_at(1.005, engine.submit, loads)
        await asyncio.sleep(3.995)
        before = engine.load()
        await asyncio.sleep(0.01)  # at 500 tokens each nothing is left
        after = engine.load()
        await asyncio.gather(grows.done, loads.done)
        assert (before.kv_use, after.kv_use) == (0.999, 0.5)
        return [grows.preempted, loads.preempted]

    assert run(main()) == [1, 0]


def test_the_load_is_heard_at_the_end_of_the_first_step_after_a_change() -> None:
    async def main() -> list[tuple[float, int]]:
        loop, heard = asyncio.get_running_loop(), []

        def hear(load: Load) -> None:
            heard.append((round(loop.time(), 6), load.running))

        engine = Engine("e", _profile(), on_load=hear, reply_s=0.002)
        jobs = [_leg(10, 10, 0.0), _leg(10, 20, 0.0)]
        engine.submit(jobs[0])
        loop.call_at(0.015, engine.submit, jobs[1])
        await asyncio.gather(*(job.done for job in jobs))
        await asyncio.sleep(0.1)
        return heard

    # Each joins (0.0, 0.03), the first ends (0.1), so does the second (0.23).
    assert run(main()) == [(0.012, 1), (0.042, 2), (0.112, 1), (0.232, 0)]


def test_time_and_steps_of_work_are_counted() -> None:
    async def main() -> Engine:
        engine = Engine("e", _profile())
        await _all(engine, _job(20, 3))
        await asyncio.sleep(1.0)
        await _all(engine, _leg(20, 5))
        return engine

    engine = run(main())
    assert engine.meter.busy_s == pytest.approx(0.02 + 2 * 0.01 + 5 * 0.01)
    assert (engine.meter.steps, engine.meter.step_requests) == (1 + 2 + 5, 2 + 5)
