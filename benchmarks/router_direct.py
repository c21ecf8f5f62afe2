"""The engines without the stack: one prefill and one decode called in this process, one after the other."""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from statistics import median

import msgspec

from deployments.engine import EngineConfig
from deployments.sim_engine import SimEngine
from deployments.sim_stream import SimSampling
from heliostat.spec import Spec
from heliostat.wire import DecodeRequest, PrefillRequest, Role, TokenFrame


async def direct_first_token_ms(spec: Spec, prompt_tokens: int, requests: int) -> float:
    """Median time to the first token of so many requests, one at a time, in ms."""
    prefill, decode = (_engine(spec, role) for role in Role)
    times = []
    for number in range(requests):
        token_ids = tuple((number + position) % 80 + 8 for position in range(prompt_tokens))
        start = time.perf_counter()
        result = await prefill.prefill(PrefillRequest(f"p{number}", "free", token_ids[:-1]))
        request = DecodeRequest(
            f"d{number}", "free", token_ids, result.ticket, msgspec.msgpack.encode(SimSampling(max_tokens=8))
        )
        async with aclosing(decode.decode(request)) as frames:
            await _first(frames)
            times.append((time.perf_counter() - start) * 1e3)
    return median(times)


async def _first(frames: AsyncGenerator[TokenFrame, None]) -> None:
    await anext(frames)


def _engine(spec: Spec, role: Role) -> SimEngine:
    pool = spec.pools()[role, "free"]
    name = f"{role}-free#direct"
    return SimEngine(
        EngineConfig(
            role,
            "free",
            pool,
            spec.family,
            spec.transfer,
            Path(spec.family.base),
            "base",
            name,
            uuid.uuid4().hex,
        )
    )
