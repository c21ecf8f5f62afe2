"""The engine against another one, written without closed forms, events or counters: one step at a time.

Everything is counted anew in every step, from the requests and from lists of names.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from simulator.engine.engine import Engine
from simulator.engine.job import Job
from simulator.engine.profile import Profile
from simulator.timing.base import Chunk, StepLine
from simulator.virtual_time import run

BLOCK = 8

KINDS = ["decode", "prefill", "colocated", "mixed"]
WITHOUT_PREFIXES = ("decode", "mixed")


class Uneven:
    """Numbers that do not meet by chance."""

    def decode_line(self, requests: int) -> StepLine:
        return StepLine(1.53 + 0.211 * requests, 0.00317)

    def step_ms(self, requests: int, context_tokens: int, chunks: Sequence[Chunk]) -> float:
        line = self.decode_line(requests)
        decode_ms = line.base_ms + line.per_token_ms * context_tokens if requests else 0.47
        return decode_ms + sum(c.new_tokens * (0.031 + 1e-5 * c.context_tokens) for c in chunks)

    def handoff_ms(self, num_bytes: int) -> float:
        return 0.0


@dataclass(eq=False)
class Asked:
    """A request, and in the reference also where it is."""

    at_s: float
    prompt: int
    output: int
    blocks: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    fetch_s: float | None = None

    generated: int = 0
    computed: int = 0
    target: int = 0
    held: tuple[int, ...] = ()
    loaded_s: float = 0.0
    first_s: float = 0.0
    end_s: float = 0.0


@dataclass
class Reference:
    profile: Profile
    waiting: list[Asked] = field(default_factory=list)
    loading: list[Asked] = field(default_factory=list)
    prefilling: list[Asked] = field(default_factory=list)
    ready: list[Asked] = field(default_factory=list)
    batch: list[Asked] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    """Cached names that nobody holds, the least recently used first."""
    preemptions: int = 0

    @property
    def inside(self) -> list[Asked]:
        return self.loading + self.prefilling + self.ready + self.batch

    def in_use(self) -> int:
        private = sum(one.prompt + one.generated - BLOCK * len(one.held) for one in self.inside)
        return private + BLOCK * len(self.held())

    def held(self) -> set[int]:
        return {name for one in self.inside for name in one.held}

    def free(self) -> int:
        return self.profile.kv_tokens - self.in_use()

    def trim(self) -> None:
        while self.idle and self.in_use() + BLOCK * len(self.idle) > self.profile.kv_tokens:
            self.idle.pop(0)

    def hold(self, one: Asked, names: tuple[int, ...]) -> None:
        one.held = names
        self.idle = [name for name in self.idle if name not in names]

    def leave(self, one: Asked, queue: list[Asked]) -> None:
        names, one.held = one.held, ()
        queue.remove(one)
        self.idle += [name for name in reversed(names) if name not in self.held()]

    def admit(self, now: float) -> None:
        while self.waiting and len(self.inside) < self.profile.max_running:
            one, cached = self.waiting[0], self.held() | set(self.idle)
            names: tuple[int, ...] = ()
            while (
                self.profile.keeps_prefixes
                and len(names) < len(one.blocks)
                and one.blocks[len(names)] in cached
            ):
                names = one.blocks[: len(names) + 1]
            idle = sum(name in self.idle for name in names)
            tokens = one.prompt + one.generated
            if tokens - BLOCK * (len(names) - idle) + len(self.batch) + 1 > self.free():
                return
            self.waiting.pop(0)
            if one.fetch_s is not None:
                one.loaded_s = now + one.fetch_s
                self.loading.append(one)
            else:
                one.computed, one.target = min(BLOCK * len(names), tokens - 1), tokens
                self.prefilling.append(one)
            self.hold(one, names)
            self.trim()

    def arrived(self, one: Asked) -> None:
        self.loading.remove(one)
        if one.generated:
            one.computed, one.target = one.prompt, one.prompt + one.generated
            self.prefilling.append(one)
        else:
            self.ready.append(one)

    def finish(self, one: Asked, queue: list[Asked], now: float) -> None:
        if self.profile.keeps_prefixes and len(one.kept) > len(one.held):
            self.hold(one, one.kept)
            self.trim()
        self.leave(one, queue)
        one.end_s = now

    def got_token(self, one: Asked, now: float) -> None:
        one.generated += 1
        if one.generated == 1:
            one.first_s = now

    def step(self, now: float, order: list[Asked]) -> float | None:
        """One step; returns its end, None if there is nothing to compute."""
        self.admit(now)
        self.batch, self.ready = self.batch + self.ready, []
        while self.batch and self.free() < len(self.batch):
            newest = max(self.batch, key=order.index)
            self.leave(newest, self.batch)
            self.waiting.insert(0, newest)
            self.preemptions += 1
        budget, chunks = self.profile.max_batched_tokens - len(self.batch), []
        for one in self.prefilling:
            new_tokens = min(budget, one.target - one.computed)
            if new_tokens > 0:
                chunks.append((one, Chunk(new_tokens, one.computed)))
                budget -= new_tokens
        if not chunks and not self.batch:
            return None
        context = sum(one.prompt + one.generated for one in self.batch)
        now += self.profile.timing.step_ms(len(self.batch), context, [chunk for _, chunk in chunks]) / 1e3
        for one in self.batch:
            self.got_token(one, now)
        self.trim()
        over = [one for one in self.batch if one.generated == one.output]
        for one in sorted(over, key=order.index):
            self.finish(one, self.batch, now)
        for one, chunk in chunks:
            one.computed += chunk.new_tokens
            if one.computed == one.target:
                self.computed(one, now)
        return now

    def computed(self, one: Asked, now: float) -> None:
        if self.profile.keeps_prefixes:
            self.hold(one, one.blocks)
        if one.output:
            self.got_token(one, now)
        self.trim()
        if one.generated == one.output:
            self.finish(one, self.prefilling, now)
        else:
            self.prefilling.remove(one)
            self.ready.append(one)

    def run(self, asked: list[Asked]) -> None:
        now, to_come = 0.0, list(asked)
        while True:
            for one in sorted(self.loading, key=lambda one: one.loaded_s):
                if one.loaded_s <= now:
                    self.arrived(one)
            while to_come and to_come[0].at_s <= now:
                self.waiting.append(to_come.pop(0))
            end = self.step(now, asked)
            if end is None:
                times = [one.loaded_s for one in self.loading] + [one.at_s for one in to_come[:1]]
                if not times:
                    return
                end = min(times)
            now = end


def _drawn(draw: random.Random, kind: str, longest: int) -> list[Asked]:
    asked, at_s = [], 0.0
    for number in range(draw.randrange(5, 25)):
        at_s += draw.expovariate(draw.choice([20.0, 200.0, 2000.0]))
        prompt = draw.randrange(2, longest // 2)
        output = 0 if kind == "prefill" else draw.randrange(1, longest // 2)
        names: tuple[int, ...] = ()
        kept = 0
        loads = kind == "mixed" and draw.random() < 0.5
        if kind not in WITHOUT_PREFIXES:
            group, common = draw.randrange(3), draw.randrange(0, 9)
            chain = [
                group * 1000 + place if place < common else 10_000 * number + place for place in range(99)
            ]
            names = tuple(chain[: (prompt + output) // BLOCK])
            kept = len(names) if draw.random() < 0.5 else 0
        asked.append(
            Asked(
                at_s,
                prompt,
                output,
                names[: prompt // BLOCK],
                names[:kept] if output else (),
                draw.uniform(0.0001, 0.03) if kind == "decode" or loads else None,
            )
        )
    return asked


async def _served(profile: Profile, asked: list[Asked]) -> tuple[list[Job], Engine]:
    loop = asyncio.get_running_loop()
    engine, jobs = Engine("e", profile), []
    for one in asked:
        job = Job("m", one.prompt, one.output, one.blocks, loop.create_future(), one.kept)
        if one.fetch_s is not None:
            job.fetch = lambda begin_s, _, seconds=one.fetch_s: begin_s + seconds
        loop.call_at(one.at_s, engine.submit, job)
        jobs.append(job)
    async with asyncio.timeout(1e4):
        await asyncio.gather(*(job.done for job in jobs))
    return jobs, engine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pressure", [False, True])
def test_every_time_is_that_of_the_steps_one_by_one(kind: str, pressure: bool) -> None:
    preemptions = hits = 0
    for seed in range(60):
        draw = random.Random(f"{kind} {pressure} {seed}")
        longest = 120
        profile = Profile(
            timing=Uneven(),
            kv_tokens=draw.randrange(longest, 3 * longest) if pressure else 100_000,
            kv_bytes_per_token=1,
            max_running=draw.choice([2, 5, 100]),
            max_batched_tokens=draw.choice([7, 40, 1000]),
            block_tokens=BLOCK,
            keeps_prefixes=kind not in WITHOUT_PREFIXES,
        )
        asked = _drawn(draw, kind, longest)
        jobs, engine = run(_served(profile, asked))
        reference = Reference(profile)
        reference.run(asked)
        for job, one in zip(jobs, asked, strict=True):
            assert job.end_s == pytest.approx(one.end_s, abs=1e-9), (seed, one)
            if one.output:
                assert job.first_s == pytest.approx(one.first_s, abs=1e-9), (seed, one)
            assert job.generated == one.output
        assert engine.preemptions == reference.preemptions == sum(job.preempted for job in jobs)
        assert engine.idle
        assert engine.load().kv_use == 0.0
        preemptions += engine.preemptions
        hits += sum(job.cached_tokens for job in jobs)
    assert (preemptions > 0) == (pressure and kind != "prefill")
    assert (hits > 0) == (kind not in WITHOUT_PREFIXES)
