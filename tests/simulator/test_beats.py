"""What a simulated router hears on beats: everything that is new, and of a quiet replica enough."""

import asyncio
from pathlib import Path

from heliostat.spec import Family, Model, Pool, Replicas, Spec
from heliostat.wire import Role
from router.columns import STALE_S
from simulator.cluster import QUIET_S, Cluster
from simulator.engine.job import Job
from simulator.profile import Hardware, profiles_of
from simulator.router import Options
from simulator.topology import Arrangement
from simulator.virtual_time import run

BEAT_S = 0.1
DECODE = tuple(f"decode.d#{number}" for number in range(2))


def cluster(routers: int = 1) -> Cluster:
    """Two replicas of each role."""
    pool = Pool(weights="Qwen/Qwen3-8B", replicas=Replicas(min=2, max=2))
    spec = Spec(
        family=Family(base="Qwen/Qwen3-8B"),
        prefill={"p": pool},
        decode={"d": pool},
        models={"m": Model(prefill="p", decode="d")},
    )
    arrangement = Arrangement("spec", spec)
    profiles = profiles_of(arrangement, Hardware(), Path(), 16)
    return Cluster(arrangement, profiles, Options(routers=routers, beat_s=BEAT_S), block_tokens=16, seed=0)


def decode_job(output_tokens: int) -> Job:
    done = asyncio.get_running_loop().create_future()
    return Job("m", 1000, output_tokens, (), done, fetch=lambda begin_s, missing: begin_s)


def test_a_quiet_replica_says_so_seldom_and_never_looks_stale() -> None:
    async def main() -> float:
        made = cluster()
        beats = asyncio.get_running_loop().create_task(made.beats())
        oldest = 0.0
        for _ in range(400):
            await asyncio.sleep(0.01)
            oldest = max(oldest, float(made.routers[0].board.candidates(DECODE).age_s.max()))
        beats.cancel()
        return oldest

    assert BEAT_S < QUIET_S <= run(main()) < STALE_S


def test_what_is_new_is_known_a_beat_later_to_every_router() -> None:
    async def main() -> list[list[float]]:
        made = cluster(routers=2)
        beats = asyncio.get_running_loop().create_task(made.beats())
        await asyncio.sleep(0.55)
        made.engines[DECODE[1]].submit(decode_job(output_tokens=20_000))
        await asyncio.sleep(BEAT_S)
        known = [router.board.candidates(DECODE).running.tolist() for router in made.routers]
        beats.cancel()
        return known

    assert run(main()) == [[0, 1], [0, 1]]


def test_the_end_of_a_request_is_known_a_beat_later() -> None:
    async def main() -> tuple[float, float]:
        made = cluster()
        board = made.routers[0].board
        beats = asyncio.get_running_loop().create_task(made.beats())
        job = decode_job(output_tokens=50)
        made.engines[DECODE[0]].submit(job)
        await asyncio.sleep(BEAT_S * 1.5)
        during = float(board.candidates(DECODE).running.sum())
        await job.done
        await asyncio.sleep(BEAT_S)
        beats.cancel()
        return during, float(board.candidates(DECODE).running.sum())

    assert run(main()) == (1.0, 0.0)


def test_the_context_of_a_long_run_is_never_older_than_a_quiet_replica_may_be() -> None:
    async def main() -> tuple[float, float]:
        made = cluster()
        board, engine = made.routers[0].board, made.pools[Role.DECODE, "d"][0]
        beats = asyncio.get_running_loop().create_task(made.beats())
        engine.submit(decode_job(output_tokens=20_000))
        await asyncio.sleep(10.0)
        oldest = float(board.candidates(DECODE).age_s[0])
        behind = engine.load().context_tokens - float(board.candidates(DECODE).context_tokens[0])
        beats.cancel()
        return oldest, behind / engine.load().context_tokens

    oldest, behind = run(main())
    assert oldest <= QUIET_S + BEAT_S
    assert 0 <= behind < 0.1
