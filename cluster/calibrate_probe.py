"""What one prefill engine and one decode engine take, measured through `deployments.engine.Engine` alone.

Times are the running loop's, so that a test may measure engines in virtual time.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median

import msgspec

from deployments.engine import Engine
from heliostat.errors import HeliostatError
from heliostat.wire import DecodeRequest, PrefillRequest, PrefillResult, Ticket
from simulator.timing import DecodeSample, HandoffSample, PrefillSample

STEADY_STEPS = 24
"""Steps of which the median is a sample; those before the last request has joined do not count."""

FIRST_ID = 2
"""Ids below are begin, end and padding in most vocabularies."""

MIN_MS = 1e-3
"""A sample has to be positive, also where a clock is coarse."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Steady decode steps of one batch: their median and mean, ms, and the batch's mean context, tokens."""

    requests: int
    context_tokens: int
    median_ms: float
    mean_ms: float


@dataclass(slots=True)
class Probe:
    """Asks one model's engines, with prompts of random ids that no cache has seen.

    `whole_prompt`: prefills get x_N, too (`heliostat.spec.Connector`); then tickets do not say how many bytes
    they stand for, and `kv_bytes_per_token` does.
    """

    model: str
    vocab: int
    kv_bytes_per_token: int
    draw: random.Random
    whole_prompt: bool = False

    async def prefill(self, engine: Engine, new_tokens: int, cached_tokens: int = 0) -> PrefillSample:
        """One prompt of so many tokens, some of which the engine has just computed for another one.

        Saving the KV for its reader belongs to the handoff, so it is not in the time.
        """
        shared = self._tokens(cached_tokens)
        if shared:
            await self._release(engine, (await self._prefill(engine, shared))[1])
        prompt = (*shared, *self._tokens(new_tokens))
        ms, result = await self._prefill(engine, prompt)
        await self._release(engine, result)
        return PrefillSample(
            new_tokens=len(prompt) - result.cached_tokens,
            cached_tokens=result.cached_tokens,
            ms=max(ms - result.save_ms, MIN_MS),
        )

    async def handoff(self, prefill: Engine, decode: Engine, tokens: int, tries: int = 3) -> HandoffSample:
        """A prompt of `tokens` and one, from prefill to decode: saving its KV, and what the first token takes
        longer than a step does. Raises HeliostatError when tokens come all at once, however often."""
        prompt = self._tokens(tokens + 1)
        _, result = await self._prefill(prefill, self._prefilled(prompt))
        begin_s = _now_s()
        stamps, load_ms = await self._decode(decode, prompt, result.ticket, STEADY_STEPS)
        if len(stamps) < 2 and tries > 1:
            return await self.handoff(prefill, decode, tokens, tries - 1)
        if len(stamps) < 2:
            raise HeliostatError(f"a decode of {STEADY_STEPS} tokens came in one frame: no step to time")
        step_ms = median(_gaps_ms(stamps, stamps[0][0], stamps[-1][0]))
        first_ms = (stamps[0][0] - begin_s) * 1e3
        num_bytes = result.ticket.num_bytes or tokens * self.kv_bytes_per_token
        return HandoffSample(
            num_bytes=num_bytes, ms=max(result.save_ms + max(load_ms, first_ms - step_ms), MIN_MS)
        )

    async def decode(
        self,
        prefill: Engine,
        decode: Engine,
        requests: int,
        context: int,
        steps: int = STEADY_STEPS,
        tries: int = 3,
    ) -> Steps:
        """Steps of so many requests with `context` prompt tokens each, `steps` of them or more.

        Raises HeliostatError when they do not run together, however often it is tried.
        """
        prompts = [self._tokens(context) for _ in range(requests)]
        tickets = [(await self._prefill(prefill, self._prefilled(prompt)))[1].ticket for prompt in prompts]
        # The first ones decode while the last ones join: that many steps more, so that all meet.
        tokens = steps + 2 * requests
        streams = await asyncio.gather(
            *(
                self._decode(decode, prompt, ticket, tokens)
                for prompt, ticket in zip(prompts, tickets, strict=True)
            )
        )
        # An engine that outruns its reader gives a stream several steps in a frame. All of them: no time.
        stamps = [stream for stream, _ in streams if len(stream) > 1]
        begin_s = max((stream[0][0] for stream in stamps), default=0.0)
        end_s = min((stream[-1][0] for stream in stamps), default=0.0)
        gaps = [gap for stream in stamps for gap in _gaps_ms(stream, begin_s, end_s)]
        if not gaps and tries > 1:
            return await self.decode(prefill, decode, requests, context, steps, tries - 1)
        if not gaps:
            raise HeliostatError(
                f"{requests} requests did not decode together: the first was done before the last began, or "
                "their tokens came all at once"
            )
        grown = sum(_count(stream, begin_s) + _count(stream, end_s) for stream in stamps) // 2
        grown = grown * requests // len(stamps)
        return Steps(requests, requests * context + grown, median(gaps), mean(gaps))

    @asynccontextmanager
    async def busy(self, engine: Engine, tokens: int) -> AsyncGenerator[None, None]:
        """Meanwhile a prefill engine computes one prompt after the other."""

        async def compute() -> None:
            while True:
                await self._release(engine, (await self._prefill(engine, self._tokens(tokens)))[1])

        task = asyncio.create_task(compute())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self.draw.choices(range(FIRST_ID, self.vocab), k=count))

    def _prefilled(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        return prompt if self.whole_prompt else prompt[:-1]

    async def _prefill(self, engine: Engine, tokens: tuple[int, ...]) -> tuple[float, PrefillResult]:
        begin_s = _now_s()
        result = await engine.prefill(PrefillRequest(uuid.uuid4().hex, self.model, tokens))
        return (_now_s() - begin_s) * 1e3, result

    async def _release(self, engine: Engine, result: PrefillResult) -> None:
        if not self.whole_prompt:
            await engine.release(result.ticket.ticket_id)

    async def _decode(
        self, engine: Engine, prompt: tuple[int, ...], ticket: Ticket, tokens: int
    ) -> tuple[list[tuple[float, int]], float]:
        """When each frame came and how many tokens were out by then, and how long the KV was loaded, ms."""
        # The fields of vLLM's SamplingParams that make a greedy answer of exactly so many tokens.
        sampling = msgspec.msgpack.encode({"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True})
        request = DecodeRequest(
            uuid.uuid4().hex, self.model, prompt, ticket, sampling, max_tokens=tokens, expected_tokens=tokens
        )
        stamps: list[tuple[float, int]] = []
        out, load_ms = 0, 0.0
        async with aclosing(engine.decode(request)) as frames:
            async for frame in frames:
                load_ms = max(load_ms, frame.load_ms or 0.0)
                if new := sum(len(delta.token_ids) for delta in frame.deltas):
                    out += new
                    stamps.append((_now_s(), out))
        return stamps, load_ms


def decode_sample(rounds: Sequence[Steps]) -> DecodeSample:
    """Several rounds of one batch as one sample."""
    return DecodeSample(
        requests=rounds[0].requests,
        context_tokens=int(median(each.context_tokens for each in rounds)),
        step_ms=max(median(each.median_ms for each in rounds), MIN_MS),
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _gaps_ms(stream: Sequence[tuple[float, int]], begin_s: float, end_s: float) -> list[float]:
    """Times per token between the frames of one stream within the span; a frame may hold several."""
    inside = [stamp for stamp in stream if begin_s <= stamp[0] <= end_s]
    return [(then_s - now_s) * 1e3 / (then - now) for (now_s, now), (then_s, then) in pairwise(inside)]


def _count(stream: Sequence[tuple[float, int]], at_s: float) -> int:
    """Tokens that were out by then."""
    return max((out for stamp_s, out in stream if stamp_s <= at_s), default=0)
