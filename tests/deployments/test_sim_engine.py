import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
from pydantic import JsonValue

from deployments.engine import Engine, EngineConfig
from deployments.sim_engine import SimEngine
from deployments.sim_stream import SimSampling
from deployments.sim_tokens import DEFAULT_VOCAB, expected_tokens
from heliostat.errors import EngineStartError, HandoffFailedError, HeliostatError
from heliostat.spec import Family, Pool, SimTiming, Transfer
from heliostat.wire import DecodeRequest, PrefillRequest, Role, Ticket, TokenFrame
from simulator.timing import H100, KNOWN, Chunk, Roofline, kv_capacity_tokens
from simulator.virtual_time import run

PROMPT = tuple(range(100, 141))


def engine(
    role: Role,
    timing: SimTiming | None = None,
    *,
    base: str = "none",
    max_running: int = 256,
    faults: dict[str, JsonValue] | None = None,
) -> SimEngine:
    """A replica of a pool with that timing."""
    pool = Pool(
        weights="none",
        engine="sim",
        sim=timing or SimTiming(),
        max_running=max_running,
        engine_args={"faults": faults} if faults else {},
    )
    config = EngineConfig(
        role,
        "p",
        pool,
        Family(base=base),
        Transfer(),
        Path(),
        f"{role}-weights",
        f"{role}#1",
        "o",
    )
    return SimEngine(config, clock=lambda: asyncio.get_running_loop().time())


def prefill_request(prompt: tuple[int, ...] = PROMPT, request_id: str = "r") -> PrefillRequest:
    return PrefillRequest(request_id, "m", prompt[:-1])


def decode_request(
    ticket: Ticket | None,
    max_tokens: int,
    prompt: tuple[int, ...] = PROMPT,
    generated: tuple[int, ...] = (),
    n: int = 1,
) -> DecodeRequest:
    sampling = msgspec.msgpack.encode(SimSampling(n=n, max_tokens=max_tokens))
    return DecodeRequest("r", "m", prompt, ticket, sampling, generated)


async def ticket_for(prompt: tuple[int, ...] = PROMPT) -> Ticket:
    return (await engine(Role.PREFILL).prefill(prefill_request(prompt))).ticket


async def collect(frames: AsyncGenerator[TokenFrame, None]) -> list[TokenFrame]:
    return [frame async for frame in frames]


def tokens(frames: list[TokenFrame], index: int = 0) -> tuple[int, ...]:
    deltas = (delta for frame in frames for delta in frame.deltas if delta.index == index)
    return tuple(token for delta in deltas for token in delta.token_ids)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_tokens_are_those_of_the_oracle() -> None:
    decode: Engine = engine(Role.DECODE)
    frames = await collect(decode.decode(decode_request(await ticket_for(), 50)))
    assert tokens(frames) == expected_tokens(PROMPT, "prefill-weights", "decode-weights", 50)
    assert [frame.finished for frame in frames] == [False] * 49 + [True]
    assert frames[-1].deltas[0].finish_reason == "length"
    assert [frame.load_ms is not None for frame in frames] == [True] + [False] * 49
    assert set(tokens(frames)) <= set(DEFAULT_VOCAB)
    assert len(set(tokens(frames))) > 10


async def replay(generated: tuple[int, ...]) -> tuple[int, ...]:
    request = decode_request(await ticket_for(), 30, generated=generated)
    return tokens(await collect(engine(Role.DECODE).decode(request)))


@pytest.mark.parametrize("lost_after", [1, 7, 29])
async def test_a_replay_goes_on_where_the_lost_replica_stopped(lost_after: int) -> None:
    whole = expected_tokens(PROMPT, "prefill-weights", "decode-weights", 30)
    assert await replay(whole[:lost_after]) == whole[lost_after:]


async def test_a_replay_of_wrong_tokens_shows() -> None:
    whole = expected_tokens(PROMPT, "prefill-weights", "decode-weights", 30)
    for wrong in ((*whole[:9], whole[9] ^ 1), whole[1:11], (*whole[:9], *whole[8:9])):
        assert await replay(wrong) != whole[10:]


async def test_a_replay_of_a_whole_answer_only_ends_it() -> None:
    whole = expected_tokens(PROMPT, "prefill-weights", "decode-weights", 5)
    frames = await collect(engine(Role.DECODE).decode(decode_request(await ticket_for(), 5, generated=whole)))
    assert [frame.finished for frame in frames] == [True]
    assert tokens(frames) == ()


async def test_n_sequences_are_different() -> None:
    frames = await collect(engine(Role.DECODE).decode(decode_request(await ticket_for(), 20, n=2)))
    assert tokens(frames, 0) == expected_tokens(PROMPT, "prefill-weights", "decode-weights", 20)
    assert tokens(frames, 1) != tokens(frames, 0)


async def test_a_prompt_without_its_own_kv_is_refused() -> None:
    decode = engine(Role.DECODE)
    for ticket in (None, await ticket_for(PROMPT[1:]), await ticket_for((1, *PROMPT[1:]))):
        with pytest.raises(HandoffFailedError):
            await collect(decode.decode(decode_request(ticket, 5)))
    assert decode.load().running == decode.load().waiting == 0


def test_a_ticket_whose_lease_ended_is_refused_and_swept() -> None:
    async def main() -> None:
        prefill = engine(Role.PREFILL)
        ticket = (await prefill.prefill(prefill_request())).ticket
        await asyncio.sleep(31.0)
        with pytest.raises(HandoffFailedError, match="lease"):
            await collect(engine(Role.DECODE).decode(decode_request(ticket, 5)))
        await prefill.sweep()
        assert not await prefill.release(ticket.ticket_id)

    run(main())


def test_a_step_takes_the_time_of_its_batch_and_context() -> None:
    async def main() -> None:
        timing = SimTiming(step_ms=10.0, per_request_ms=1.0, per_kilotoken_ms=100.0)
        decode = engine(Role.DECODE, timing)
        ticket = await ticket_for()
        await asyncio.gather(*(collect(decode.decode(decode_request(ticket, 3))) for _ in range(2)))
        contexts = [2 * (len(PROMPT) + k) for k in range(3)]
        assert now() * 1e3 == pytest.approx(sum(12.0 + context / 10 for context in contexts))

    run(main())


def test_it_takes_the_times_of_a_gpu_that_the_spec_names() -> None:
    async def main() -> None:
        timing = Roofline(H100, KNOWN["Qwen/Qwen3-8B"])
        prefill = engine(Role.PREFILL, SimTiming(gpu="h100"), base="Qwen/Qwen3-8B")
        result = await prefill.prefill(prefill_request())
        took_ms = timing.step_ms(0, 0, [Chunk(len(PROMPT) - 1, 0)])
        assert now() * 1e3 == pytest.approx(took_ms)
        decode = engine(Role.DECODE, SimTiming(gpu="h100"), base="Qwen/Qwen3-8B")
        await collect(decode.decode(decode_request(result.ticket, 1)))
        took_ms += timing.handoff_ms(result.ticket.num_bytes) + timing.step_ms(1, len(PROMPT), ())
        assert now() * 1e3 == pytest.approx(took_ms)
        assert decode.load().kv_tokens == kv_capacity_tokens(H100, KNOWN["Qwen/Qwen3-8B"])

    run(main())


def test_accelerated_time_is_the_same_story_in_a_tenth_of_the_time() -> None:
    async def took_s(speed: float) -> float:
        began = now()
        prefill = engine(Role.PREFILL, SimTiming(gpu="a100", speed=speed), base="Qwen/Qwen3-8B")
        ticket = (await prefill.prefill(prefill_request())).ticket
        decode = engine(Role.DECODE, SimTiming(gpu="a100", speed=speed), base="Qwen/Qwen3-8B")
        await collect(decode.decode(decode_request(ticket, 20)))
        return now() - began

    async def main() -> None:
        assert await took_s(10.0) == pytest.approx(await took_s(1.0) / 10)

    run(main())


def test_a_gpu_that_nobody_knows_stops_the_start() -> None:
    with pytest.raises(EngineStartError, match=r"h1000.*h100"):
        engine(Role.DECODE, SimTiming(gpu="h1000"), base="Qwen/Qwen3-8B")


def test_more_than_max_running_wait_their_turn() -> None:
    async def main() -> None:
        decode = engine(Role.DECODE, SimTiming(step_ms=10.0), max_running=2)
        ticket = await ticket_for()
        order: list[int] = []

        async def one(number: int) -> None:
            await collect(decode.decode(decode_request(ticket, 4)))
            order.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(5)]
        await asyncio.sleep(0.025)
        load = decode.load()
        assert (load.running, load.waiting, load.context_tokens) == (2, 3, 2 * (len(PROMPT) + 2))
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]
        assert now() == pytest.approx(3 * 4 * 0.010)
        load = decode.load()
        assert (load.running, load.waiting, load.kv_use, load.context_tokens) == (0, 0, 0.0, 0)
        assert load.tpot_ms == pytest.approx(10.0)

    run(main())


def test_when_kv_runs_out_the_newest_gives_way_and_loses_no_token() -> None:
    async def main() -> None:
        decode = engine(Role.DECODE, SimTiming(step_ms=1.0, kv_tokens=150))
        ticket = await ticket_for()
        request = decode_request(ticket, 60)
        answers = await asyncio.gather(*(collect(decode.decode(request)) for _ in range(3)))
        assert decode.preempted > 0
        expected = expected_tokens(PROMPT, "prefill-weights", "decode-weights", 60)
        assert [tokens(frames) for frames in answers] == [expected] * 3
        assert decode.load().kv_use == 0.0

    run(main())


def test_a_handoff_takes_its_time_beside_the_batch() -> None:
    async def main() -> None:
        ticket = await ticket_for()
        rate = ticket.num_bytes / 2**30 / 0.5
        decode = engine(Role.DECODE, SimTiming(step_ms=10.0, handoff_gib_per_s=rate))
        frames = await collect(decode.decode(decode_request(ticket, 2)))
        assert frames[0].load_ms == pytest.approx(500.0)
        assert now() == pytest.approx(0.52)

    run(main())


def test_closing_a_stream_frees_its_kv_in_every_phase() -> None:
    async def main() -> None:
        ticket = await ticket_for()
        rate = ticket.num_bytes / 2**30 / 0.010
        timing = SimTiming(step_ms=10.0, handoff_gib_per_s=rate)
        decode = engine(Role.DECODE, timing, max_running=2)
        for wait_s in (0.005, 0.015, 0.035):
            tasks = [
                asyncio.create_task(collect(decode.decode(decode_request(ticket, 1000)))) for _ in range(3)
            ]
            await asyncio.sleep(wait_s)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            load = decode.load()
            assert (load.running, load.waiting, load.kv_use, load.shares) == (0, 0, 0.0, ())
        assert len(await collect(decode.decode(decode_request(ticket, 5)))) == 5

    run(main())


def test_frames_of_one_step_share_their_load() -> None:
    async def main() -> None:
        decode = engine(Role.DECODE, SimTiming(step_ms=1.0))
        ticket = await ticket_for()
        request = decode_request(ticket, 5)
        one, other = await asyncio.gather(*(collect(decode.decode(request)) for _ in range(2)))
        assert all(left.load is right.load for left, right in zip(one, other, strict=True))
        sequences = [frame.load.sequence for frame in one]
        assert sequences == sorted(set(sequences))
        assert one[-1].load.running == 0

    run(main())


def test_the_step_fit_finds_the_timing() -> None:
    async def main() -> None:
        timing = SimTiming(step_ms=8.0, per_request_ms=0.5)
        decode = engine(Role.DECODE, timing)
        ticket = await ticket_for()

        async def one(number: int) -> None:
            await asyncio.sleep(0.05 * number)
            await collect(decode.decode(decode_request(ticket, 20 + 7 * number)))

        await asyncio.gather(*(one(number) for number in range(20)))
        load = decode.load()
        predicted = load.step.base_ms + load.step.per_request_ms * 10 + load.step.per_token_ms * 1000
        assert predicted == pytest.approx(13.0, rel=0.05)

    run(main())


async def test_die_after_tokens_fails_streams_and_health() -> None:
    decode = engine(Role.DECODE, faults={"die_after_tokens": 5})
    await decode.check_health()
    request = decode_request(await ticket_for(), 50)
    seen: list[TokenFrame] = []
    with pytest.raises(HandoffFailedError, match="died"):
        async for frame in decode.decode(request):
            seen.append(frame)
    assert len(seen) == 5
    with pytest.raises(HeliostatError):
        await decode.check_health()
    with pytest.raises(HandoffFailedError):
        await collect(decode.decode(request))


def test_stall_after_tokens_says_nothing_more() -> None:
    async def main() -> None:
        decode = engine(Role.DECODE, faults={"stall_after_tokens": 5})
        ticket = await ticket_for()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60.0):
                await collect(decode.decode(decode_request(ticket, 50)))
        decode.stop()

    run(main())


def test_a_slow_replica_takes_longer_for_everything() -> None:
    async def main() -> None:
        timing = SimTiming(step_ms=10.0, prefill_tokens_per_s=100.0)
        await engine(Role.PREFILL, timing, faults={"slow": 3.0}).prefill(prefill_request())
        assert now() == pytest.approx(1.2)
        decode = engine(Role.DECODE, timing, faults={"slow": 3.0})
        await collect(decode.decode(decode_request(await ticket_for(), 10)))
        assert now() == pytest.approx(1.5)

    run(main())


def test_unknown_faults_stop_the_start() -> None:
    with pytest.raises(EngineStartError):
        engine(Role.DECODE, faults={"explode": True})


def test_handoffs_are_booked_on_both_sides() -> None:
    async def story() -> None:
        writer, reader = engine(Role.PREFILL), engine(Role.DECODE, SimTiming(handoff_gib_per_s=1e-3))
        ticket = (await writer.prefill(prefill_request())).ticket
        await collect(reader.decode(decode_request(ticket, 3)))
        (read,) = (await reader.status(1)).handoffs
        assert (read.transport, read.domain) == ("shm", ticket.domain)
        assert (read.committed, read.admitted, read.released, read.open) == (1, 1, 1, 0)
        assert (read.copies, read.num_bytes) == (1, ticket.num_bytes)
        assert read.ms == pytest.approx(ticket.num_bytes / (1e-3 * 2**30) * 1e3)
        assert read.stranded_block_s == 0
        (written,) = (await writer.status(1)).handoffs
        assert (written.committed, written.open) == (1, 1)
        await asyncio.sleep(31)
        await writer.sweep()
        (written,) = (await writer.status(1)).handoffs
        assert (written.admitted, written.released, written.stranded_block_s) == (1, 1, 0)

    run(story())


def test_kv_that_nobody_reads_is_stranded_on_both_sides() -> None:
    async def story() -> None:
        writer, reader = engine(Role.PREFILL), engine(Role.DECODE, SimTiming(step_ms=1000), max_running=1)
        ticket = (await writer.prefill(prefill_request())).ticket
        first = asyncio.ensure_future(collect(reader.decode(decode_request(ticket, 5))))
        waiting = (await writer.prefill(prefill_request(request_id="w"))).ticket
        second = asyncio.ensure_future(collect(reader.decode(decode_request(waiting, 5))))
        await asyncio.sleep(2.5)
        second.cancel()
        assert await writer.release(waiting.ticket_id)
        await first
        for side in (reader, writer):
            (figures,) = (await side.status(1)).handoffs
            assert figures.stranded_block_s == pytest.approx(2 * 2.5)  # two blocks of 32 tokens

    run(story())


def test_failed_handoffs_are_booked_by_class() -> None:
    async def story() -> None:
        reader = engine(Role.DECODE, faults={"fail_handoff_containing": PROMPT[7]})
        with pytest.raises(HandoffFailedError, match="on purpose"):
            await collect(reader.decode(decode_request(await ticket_for(), 5)))
        other = tuple(range(200, 241))
        with pytest.raises(HandoffFailedError, match="another prompt"):
            await collect(reader.decode(decode_request(await ticket_for(), 5, prompt=other)))
        late = await ticket_for(other)
        await asyncio.sleep(31)
        with pytest.raises(HandoffFailedError, match="lease"):
            await collect(reader.decode(decode_request(late, 5, prompt=other)))
        (figures,) = (await reader.status(1)).handoffs
        assert figures.failures == {"refused": 2, "expired": 1}
        assert figures.copies == figures.open == 0

    run(story())
