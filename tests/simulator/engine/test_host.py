import asyncio
from collections.abc import Sequence

import pytest

from simulator.engine.engine import Engine
from simulator.engine.host import Host
from simulator.engine.job import Job
from simulator.engine.profile import Profile
from simulator.timing.base import Chunk, StepLine
from simulator.virtual_time import run


class TenMilliseconds:
    """Every step of decoding takes 10 ms, every step with chunks 20 ms."""

    def decode_line(self, requests: int) -> StepLine:
        return StepLine(10.0, 0.0)

    def step_ms(self, requests: int, context_tokens: int, chunks: Sequence[Chunk]) -> float:
        return 20.0

    def handoff_ms(self, num_bytes: int) -> float:
        return 0.0


def _decode(output_tokens: int) -> Job:
    """A decode leg whose KV is there at once."""
    return Job(
        "m",
        10,
        output_tokens,
        (),
        asyncio.get_running_loop().create_future(),
        fetch=lambda begin_s, _: begin_s,
    )


def _engines(number: int, cores: float) -> list[Engine]:
    profile = Profile(TenMilliseconds(), 10_000, 1, 8, 100, 16, False)
    host = Host(cores)
    return [Engine(f"{place}", profile, host=host) for place in range(number)]


def test_slow_is_busy_engines_over_cores_but_never_below_1() -> None:
    host = Host(2.0)
    slows = []
    for _ in range(4):
        host.changed(+1)
        slows.append(host.slow)
    assert slows == [1.0, 1.0, 1.5, 2.0]
    host.changed(-3)
    assert host.slow == 1.0


@pytest.mark.parametrize(("cores", "slow"), [(4.0, 1.0), (2.0, 2.0), (1.0, 4.0)])
def test_engines_that_are_busy_together_share_the_cores(cores: float, slow: float) -> None:
    async def main() -> list[float]:
        engines = _engines(4, cores)
        jobs = [_decode(101) for _ in engines]
        for engine, job in zip(engines, jobs, strict=True):
            engine.submit(job)
        await asyncio.gather(*(job.done for job in jobs))
        return [job.end_s for job in jobs]

    # The first step of each is as slow as the host was when it began.
    assert run(main()) == pytest.approx([1.01 * slow] * 4, abs=0.01 * slow)


def test_an_engine_in_the_middle_of_a_run_notices_at_its_next_boundary() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        one, other = _engines(2, 1.0)
        long, short = _decode(100), _decode(10)
        one.submit(long)
        loop.call_at(0.255, other.submit, short)
        await asyncio.gather(long.done, short.done)
        return long.end_s, short.end_s

    long_s, short_s = run(main())
    # The other's 10 steps take 20 ms each, from 0.255 to 0.455. This one has made 26 steps by 0.26, then
    # makes 10 of 20 ms (the last one from 0.44 to 0.46), and the other 64 at full speed.
    assert short_s == pytest.approx(0.455)
    assert long_s == pytest.approx(0.26 + 10 * 0.02 + 64 * 0.01)


def test_a_step_with_chunks_is_slowed_too() -> None:
    async def main() -> float:
        one, other = _engines(2, 1.0)
        other.submit(_decode(1000))
        await asyncio.sleep(0.001)
        prefill = Job("m", 10, 0, (), asyncio.get_running_loop().create_future())
        one.submit(prefill)
        await prefill.done
        return prefill.end_s

    assert run(main()) == pytest.approx(0.001 + 0.04)
