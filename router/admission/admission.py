"""Accept, queue with a deadline, or refuse: what stands between a request and the pools.

    check(model)  ──>  429 with Retry-After, or 400, before any byte of the answer
    slot(model)   ──>  fair queue of the decode pool ──> a slot, held until the stream ends

Pure asyncio: it runs no task and reads no clock but the one it was given. What moves the queue is a slot that
is given back, and `pump`, which the owner calls on every telemetry beat. (Served tokens change who is
next, but free nothing.) So a deadline is kept to within one beat.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from heliostat.errors import OverloadedError, UnknownModelError
from heliostat.spec import Model, Spec
from heliostat.wire import Role
from router.admission.band import Waiting
from router.admission.capacity import PoolCapacity
from router.admission.counts import ModelCounts
from router.admission.refusal import Reason, refusal, too_many
from router.admission.slot import Slot
from router.admission.state import ModelState, PoolState, model_state

PATIENCE = 1 / 4
"""The part of its longest wait after which a request counts as old (`fair_queue`)."""


class Admission:
    """The door of one router replica, for the models of a spec and those that come later.

    `capacity` answers from memory, `clock` is monotonic, in seconds. Each of `routers` replicas grants
    its part of every limit; weights, queue lengths and waiting times hold in each of them.
    """

    def __init__(
        self, spec: Spec, capacity: PoolCapacity, clock: Callable[[], float], routers: int = 1
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._routers = routers
        self._pools = {
            name: PoolState(name, routers, pool.replicas.max) for name, pool in spec.decode.items()
        }
        self._known: dict[str, ModelState] = {}
        """The last state of every name, also of those that are gone: what they run, they finish."""
        self._models: dict[str, ModelState] = {}
        for name, model in spec.models.items():
            self.add(name, model)
        self._prefill_wait_s = dict.fromkeys(spec.prefill, 0.0)
        self.pump()

    def add(self, name: str, model: Model) -> None:
        """One more model may begin. A name that was here before goes on with its counts."""
        counts = self._known[name].counts if name in self._known else ModelCounts()
        pool = self._pools[model.decode]
        pool.queue.add_model(name, model.limits.weight)
        state = model_state(name, model, pool, self._clock, self._routers, counts)
        self._models[name] = self._known[name] = state

    def remove(self, name: str) -> None:
        """The model may not begin any more. Who waits gets UnknownModelError; who runs is not disturbed."""
        state = self._models.pop(name)
        for waiting in state.pool.queue.remove_model(name):
            future = state.pool.futures[waiting]
            if not future.done():
                future.set_exception(_unknown(name))
        self._grant(state.pool)  # it may have been what the others waited for

    def check(self, model: str, n: int = 1) -> None:
        """Let n requests of one call in, or refuse all; they count against the request rate at once.

        Raises OverloadedError (429), UnknownModelError, InvalidRequestError for an n that can never fit.
        """
        state = self._state(model)
        limits = state.limits
        if n > max(limits.max_queued, most := state.most_at_once()):
            raise too_many(n, model, state.pool.name, most, limits.max_queued)
        if state.request_rate and limits.requests_per_s and (wait_s := state.request_rate.wait_s(n)):
            raise self._refused(state, Reason.REQUEST_RATE, limits.requests_per_s, wait_s, n)
        if state.token_rate and limits.tokens_per_s and (wait_s := state.token_rate.wait_s()):
            raise self._refused(state, Reason.TOKEN_RATE, limits.tokens_per_s, wait_s, n)
        prefill_s = wait_s = self._prefill_wait_s[state.prefill]
        if not state.starts_at_once(n):
            queued = state.pool.queue.queued(model)
            if (excess := queued + n - limits.max_queued) > 0:
                raise self._refused(state, Reason.QUEUE_FULL, limits.max_queued, state.wait_s(excess), n)
            wait_s += state.wait_s(queued + n) or 0.0
        if (excess_s := wait_s - limits.queue_s) > 0:
            reason = Reason.PREFILL_BUSY if prefill_s > wait_s / 2 else Reason.WAIT_TOO_LONG
            raise self._refused(state, reason, limits.queue_s, excess_s, n)
        if state.request_rate:
            state.request_rate.take(n)

    @asynccontextmanager
    async def slot(
        self,
        model: str,
        prompt_tokens: int,
        max_tokens: int,
        priority: int = 0,
        deadline_s: float | None = None,
        expected_tokens: int = 0,
    ) -> AsyncGenerator[Slot, None]:
        """Wait for a slot of the model's decode pool, and hold it.

        A lower `priority` goes first. `deadline_s`: seconds from now that the caller would wait, within
        limits.queue_s. `max_tokens` 0: no limit. `expected_tokens` as in `Admission.expected_tokens`.
        Cancelling is safe at any moment.

        Raises OverloadedError (429) when no slot came in time, or the queue is full; UnknownModelError.
        """
        state = self._state(model)
        now = self._clock()
        longest_s = state.limits.queue_s if deadline_s is None else min(deadline_s, state.limits.queue_s)
        expected = state.expected_tokens(max_tokens, expected_tokens)
        waiting = Waiting(
            Slot(model, state.pool.name, prompt_tokens, expected, partial(self._served, state), priority),
            arrived_at_s=now,
            deadline_at_s=now + longest_s,
            patience_s=state.limits.queue_s * PATIENCE,
        )
        slot = await self._wait(state, waiting)
        try:
            yield slot
        finally:
            self._end(state, slot)

    def pump(self) -> None:
        """New figures are there: give them to the pools, refuse what waited too long, grant what fits."""
        for name in self._prefill_wait_s:
            wait_ms = self._capacity.slots(Role.PREFILL, name).prefill_wait_ms
            # Infinite means that nobody answers: for the pipeline to find out, and no reason for a 429.
            self._prefill_wait_s[name] = wait_ms / 1000 if math.isfinite(wait_ms) else 0.0
        for pool in self._pools.values():
            pool.ledger.beat(self._capacity.slots(Role.DECODE, pool.name))
            for waiting in pool.queue.remove_expired(self._clock()):
                future = pool.futures[waiting]
                if not future.done():
                    future.set_exception(self._too_late(waiting))
            self._grant(pool)

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        """Output tokens that are likely to come: as many as the caller knows of, or by the model's recent
        answers (128 before the first) when `known` is 0; at least 1, at most `max_tokens` (0: no limit). A
        removed model is still known, for what it runs.

        Raises UnknownModelError.
        """
        return self._last(model).expected_tokens(max_tokens, known)

    def counts(self, model: str) -> ModelCounts:
        """A copy of the model's numbers, also when it has been removed. Raises UnknownModelError."""
        state = self._last(model)
        counts = state.counts
        return replace(counts, queued=state.pool.queue.queued(model), refused=dict(counts.refused))

    def _state(self, model: str) -> ModelState:
        if model not in self._models:
            raise _unknown(model)
        return self._models[model]

    def _last(self, model: str) -> ModelState:
        if model not in self._known:
            raise _unknown(model)
        return self._known[model]

    async def _wait(self, state: ModelState, waiting: Waiting) -> Slot:
        pool = state.pool
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        pool.futures[waiting] = future
        pool.queue.push(waiting)
        state.counts.queued_tokens += waiting.slot.prompt_tokens
        self._grant(pool)
        try:
            if not future.done() and pool.queue.queued(state.name) > state.limits.max_queued:
                raise self._refused(state, Reason.QUEUE_FULL, state.limits.max_queued, state.wait_s(1))
            return await future
        except asyncio.CancelledError:
            state.counts.cancelled += 1
            if pool.ledger.holds(waiting.slot):  # granted, but cancelled before it could run
                self._end(state, waiting.slot)
            elif not future.cancelled():
                future.exception()  # refused in the same moment: nobody will ask for that any more
            raise
        finally:
            state.counts.queued_tokens -= waiting.slot.prompt_tokens
            del pool.futures[waiting]
            if waiting in pool.queue:
                pool.queue.remove(waiting)
                self._grant(pool)  # it may have been what the others waited for

    def _grant(self, pool: PoolState) -> None:
        """Hand out every slot that somebody can use."""
        while len(pool.queue) and pool.ledger.free_slots() >= 1:
            now = self._clock()
            waiting = pool.queue.take(now, lambda model: self._models[model].may_run(), pool.ledger.fits)
            if waiting is None:
                return
            if pool.futures[waiting].cancelled():  # its task has not yet had the time to leave
                continue
            self._begin(self._models[waiting.slot.model], waiting.slot)
            pool.futures[waiting].set_result(waiting.slot)

    def _begin(self, state: ModelState, slot: Slot) -> None:
        slot.began_at_s = self._clock()
        state.pool.ledger.take(slot)
        # The expected output is charged now, and settled as it comes: else a model whose long answers have
        # just begun looks cheap, and gets all slots that become free at one moment.
        state.pool.queue.charge(
            slot.model, slot.priority, prompt_tokens=slot.prompt_tokens, output_tokens=slot.expected_tokens
        )
        if state.token_rate:
            state.token_rate.take(slot.prompt_tokens)
        state.counts.admitted += 1
        state.counts.running += 1
        state.counts.prompt_tokens += slot.prompt_tokens

    def _served(self, state: ModelState, slot: Slot, tokens: int) -> None:
        if not state.pool.ledger.holds(slot):
            return
        open_before = slot.open_tokens
        state.pool.ledger.serve(slot, tokens)
        unexpected = tokens - (open_before - slot.open_tokens)
        state.pool.queue.charge(slot.model, slot.priority, output_tokens=unexpected)
        if state.token_rate:
            state.token_rate.take(tokens)
        state.counts.output_tokens += tokens

    def _end(self, state: ModelState, slot: Slot) -> None:
        state.pool.ledger.give_back(slot)
        state.pool.queue.charge(slot.model, slot.priority, output_tokens=-slot.open_tokens)
        state.counts.running -= 1
        if slot.output_tokens:  # one that failed or left before its first token says nothing
            held_s = self._clock() - slot.began_at_s
            state.held_s.add(held_s)
            state.pool.held_s.add(held_s)
            state.output_tokens.add(slot.output_tokens)
        self._grant(state.pool)

    def _too_late(self, waiting: Waiting) -> OverloadedError:
        state = self._models[waiting.slot.model]
        queued = state.pool.queue.queued(state.name)
        waited_s = waiting.deadline_at_s - waiting.arrived_at_s
        return self._refused(state, Reason.DEADLINE, waited_s, state.wait_s(queued + 1))

    def _refused(
        self, state: ModelState, reason: Reason, limit: float, wait_s: float | None, n: int = 1
    ) -> OverloadedError:
        """The error to raise. Without history, the time in which a place ought to come is what is known."""
        state.counts.refused[reason] += n
        retry_after_s = state.limits.queue_s if wait_s is None else wait_s
        pool = state.prefill if reason is Reason.PREFILL_BUSY else state.pool.name
        return refusal(reason, state.name, pool, limit, retry_after_s)


def _unknown(model: str) -> UnknownModelError:
    return UnknownModelError(f"The model `{model}` does not exist.")
