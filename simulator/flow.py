"""A request's way through a simulated cluster: admit, prefill, handoff, decode.

The story of `router.pipeline` without its failures: nothing fails here, so what is left is the choices, in
the same order and on the same telemetry.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache

from heliostat.errors import OverloadedError, PoolUnavailableError
from heliostat.wire import Role
from router.prefix_index import first_link, next_link
from simulator.cluster import Cluster
from simulator.engine.engine import Engine
from simulator.engine.job import Job
from simulator.engine.link import transfer
from simulator.outcome import Requests
from simulator.router import Router
from simulator.workload.base import Call, Session


class Flow:
    """Runs sessions over a cluster and writes down what becomes of their calls."""

    def __init__(self, cluster: Cluster, models: tuple[str, ...], block_tokens: int) -> None:
        self.requests = Requests()
        self._cluster = cluster
        self._loop = asyncio.get_running_loop()
        self._models = {model: number for number, model in enumerate(models)}
        self._block_tokens = block_tokens
        self._calls = 0
        arrangement = cluster.arrangement
        self._colocated = arrangement.colocated
        self._links = {model: first_link(arrangement.domain(model)) for model in models}

    def _fits(self, call: Call) -> bool:
        """Whether one replica of each pool can hold it; who never fits would wait for ever."""
        spec, profiles = self._cluster.arrangement.spec, self._cluster.profiles
        model = spec.models[call.model]
        tokens = call.prompt_tokens + call.output_tokens
        return (
            tokens <= spec.family.max_model_len
            and tokens <= profiles[Role.DECODE, model.decode].kv_tokens
            and (self._colocated or call.prompt_tokens <= profiles[Role.PREFILL, model.prefill].kv_tokens)
        )

    async def session(self, number: int, session: Session) -> None:
        """All calls of one session, at one router. One that is refused ends it."""
        router = self._cluster.routers[number % len(self._cluster.routers)]
        for turn, call in enumerate(session.calls):
            if turn and session.pause_s:
                await asyncio.sleep(session.pause_s)
            if not await self._call(router, number, session.name, call):
                return

    async def _call(self, router: Router, number: int, session: str, call: Call) -> bool:
        arrived_s = self._loop.time()
        known = call.output_tokens if self._cluster.options.oracle else 0
        job = Job(call.model, call.prompt_tokens, call.output_tokens, (), self._loop.create_future())
        if not self._fits(call):
            self._refused(number, call, arrived_s)
            return False
        try:
            async with router.slot(call.model, call.prompt_tokens, known) as slot:
                self._calls += 1
                expected = known or router.expected_tokens(call.model)
                job.slot = slot
                await self._cluster.front(router)
                serve = self._colocated_leg if self._colocated else self._both_legs
                cached = await serve(router, call, job, f"{self._calls}", expected, session)
        except (OverloadedError, PoolUnavailableError):
            self._refused(number, call, arrived_s)
            return False
        except asyncio.CancelledError:  # the run is cut off
            now = self._loop.time()
            # The first token's time is known when its step begins.
            self._note(number, call, arrived_s, min(job.first_s or now, now), now, 0, 0)
            raise
        if router.admission is None:
            router.answered(call.model, call.output_tokens)
        heard_s = self._cluster.options.call_s
        first_s, end_s = job.first_s + heard_s, job.end_s + heard_s
        self._note(number, call, arrived_s, first_s, end_s, call.output_tokens, cached)
        return True

    async def _both_legs(
        self, router: Router, call: Call, decode: Job, leg: str, expected: int, session: str
    ) -> int:
        """Prefill, then decode elsewhere. Returns the prompt tokens that were cached."""
        cluster, model = self._cluster, self._cluster.arrangement.spec.models[call.model]
        key = (Role.PREFILL, model.prefill)
        tokens = call.prompt_tokens - 1
        names = self._names(call.model, call.blocks)
        full = names[: tokens // self._block_tokens]
        source: Engine | None = None
        cached = 0
        if tokens:
            await cluster.awake(key)
            prefill = Job(call.model, tokens, 0, full, self._loop.create_future())
            source = cluster.engines[router.choose(key, f"{leg}p", tokens, names=full, session=session)]
            await self._submit(router, source, prefill, f"{leg}p")
            cached = prefill.cached_tokens
        key = (Role.DECODE, model.decode)
        await cluster.awake(key)
        target = cluster.engines[router.choose(key, leg, call.prompt_tokens, expected, session=session)]
        decode.fetch = self._handoff(source, target)
        if target.profile.keeps_prefixes:
            decode.blocks = names[: call.prompt_tokens // self._block_tokens]
            decode.kept = self._names(call.model, call.kept_blocks)
        await self._submit(router, target, decode, leg)
        return cached

    async def _colocated_leg(
        self, router: Router, call: Call, job: Job, leg: str, expected: int, session: str
    ) -> int:
        """One replica does both."""
        key = (Role.DECODE, self._cluster.arrangement.spec.models[call.model].decode)
        await self._cluster.awake(key)
        names = self._names(call.model, call.blocks)
        job.blocks = names[: call.prompt_tokens // self._block_tokens]
        job.kept = self._names(call.model, call.kept_blocks)
        replica = router.choose(key, leg, call.prompt_tokens, expected, job.blocks, session)
        await self._submit(router, self._cluster.engines[replica], job, leg)
        return job.cached_tokens

    async def _submit(self, router: Router, engine: Engine, job: Job, leg: str) -> None:
        """The call takes its time each way; the answer brings the replica's load."""
        self._loop.call_later(self._cluster.options.call_s, engine.submit, job)
        await job.done
        router.board.observe(engine.load())
        router.ended(leg, engine.name)

    def _handoff(self, source: Engine | None, target: Engine) -> Callable[[float, int], float]:
        def fetch(begin_s: float, missing_tokens: int) -> float:
            num_bytes = missing_tokens * target.profile.kv_bytes_per_token
            self._cluster.handoff_bytes += num_bytes
            seconds = target.profile.timing.handoff_ms(num_bytes) / 1e3
            return begin_s if source is None else transfer(source.link, target.link, begin_s, seconds)

        return fetch

    def _names(self, model: str, blocks: tuple[int, ...]) -> tuple[int, ...]:
        """The blocks in the model's KV domain."""
        return _in_domain(self._links[model], blocks)

    def _refused(self, number: int, call: Call, arrived_s: float) -> None:
        now = self._loop.time()
        self._note(number, call, arrived_s, now, now, 0, 0, refused=True)

    def _note(
        self,
        number: int,
        call: Call,
        arrived_s: float,
        first_s: float,
        end_s: float,
        output_tokens: int,
        cached_tokens: int,
        *,
        refused: bool = False,
    ) -> None:
        requests = self.requests
        requests.model.append(self._models[call.model])
        requests.session.append(number)
        requests.arrived_s.append(arrived_s)
        requests.first_s.append(first_s)
        requests.end_s.append(end_s)
        requests.prompt_tokens.append(call.prompt_tokens)
        requests.cached_tokens.append(cached_tokens)
        requests.output_tokens.append(output_tokens)
        requests.refused.append(refused)


@lru_cache(maxsize=4096)
def _in_domain(link: int, blocks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([next_link(link, (block,)) for block in blocks])
