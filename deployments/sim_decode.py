"""The decode half of a `sim` engine: one step loop for the whole batch, as continuous batching does it.

What happens per token is all that a measurement of the router can see of this engine, so it is little: a
multiplication for the token, a frame, and a waiter to wake. All frames of a step share one `Load`.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from math import inf

from deployments.engine import EngineConfig
from deployments.sim_stream import Phase, Stream, delta, load_record, open_stream
from deployments.sim_tokens import extend, next_token
from heliostat.errors import HandoffFailedError, KVRefusedError, TicketExpiredError
from heliostat.wire import DecodeRequest, Load, StepTime, TokenDelta, TokenFrame
from kvtransfer.ledger import Ledger
from kvtransfer.transport import Outcome
from router.step_clock import StepFit
from simulator.profile import ReplicaTiming

SOLVE_STEPS = 16
"""A fit that long ago is fresh enough; solving it at every step would cost more than the tokens."""

CATCH_UP_S = 0.005
"""How far a step may begin behind the beat and still be made up for."""


class SimDecode:
    """At most `max_running` requests get a token per step; the others wait, first come first served."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        vocab: range,
        replica: ReplicaTiming,
        ledger: Ledger,
        fail_containing: int | None,
        die_after: int | None,
        stall_after: int | None,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self.death = ""
        """Why it can serve no more; empty while it can."""
        self.preempted = 0
        self._config = config
        self._ledger = ledger
        self._fail_containing = fail_containing
        self._vocab = vocab
        self._die_after = die_after
        self._stall_after = stall_after
        self._sleep = sleep
        self._clock = clock
        self._replica = replica
        self._timing = replica.timing
        self._kv_tokens = replica.kv_tokens
        self._waiting: deque[Stream] = deque()
        self._loading: set[Stream] = set()
        self._running: list[Stream] = []
        self._held = 0  # KV tokens of `_loading` and `_running`
        self._context = 0  # of `_running` alone
        self._tokens = 0
        self._shares: Counter[str] = Counter()
        self._fit = StepFit(clock)
        self._step = StepTime()
        self._sequence = 0
        self._loop: asyncio.Task[None] | None = None

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        """Raises HandoffFailedError."""
        if self.death:
            raise HandoffFailedError(f"{self._config.replica}: {self.death}", self._config.replica, True)
        stream = self._open(request)
        if stream.left < 1:
            ends = tuple(TokenDelta(index, (), None, "length", None) for index in range(len(stream.states)))
            yield TokenFrame(ends, True, self.load(), None)
            return
        self._waiting.append(stream)
        self._shares[stream.model] += 1
        self._kick()
        loop = asyncio.get_running_loop()
        try:
            while True:
                while not stream.frames:
                    if self.death:
                        raise HandoffFailedError(
                            f"{self._config.replica}: {self.death}", self._config.replica, True
                        )
                    stream.waiter = loop.create_future()
                    await stream.waiter
                frame = stream.frames.popleft()
                yield frame
                if frame.finished:
                    return
        finally:
            self._leave(stream)
            self._shares[stream.model] -= 1
            if not self._shares[stream.model]:
                del self._shares[stream.model]

    def _open(self, request: DecodeRequest) -> Stream:
        """Raises HandoffFailedError, and books it."""
        ticket, now_s = request.ticket, self._clock()
        try:
            if ticket and self._fail_containing in request.token_ids:
                raise HandoffFailedError(f"{self._config.replica}: the handoff failed on purpose")
            stream = open_stream(self._config, self._replica, request, now_s)
        except HandoffFailedError as error:
            if ticket:
                expired = ticket.expires_at_s < now_s
                kind = (TicketExpiredError if expired else KVRefusedError).kind
                self._ledger.copied(load_record(ticket, 0.0, kind, str(error)))
            raise
        if ticket:
            self._ledger.commit(ticket.ticket_id, ticket.domain, ticket.num_blocks, now_s, inf)
        return stream

    # The step loop.

    def _kick(self) -> None:
        """There may be something to do."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop().create_task(self._steps())
            self._loop.add_done_callback(self._stopped)

    def _stopped(self, loop: asyncio.Task[None]) -> None:
        if not loop.cancelled() and (error := loop.exception()):
            self._die(f"{type(error).__name__}: {error}")

    async def _steps(self) -> None:
        now = asyncio.get_running_loop().time
        begin = due = now()
        while True:
            self._admit()
            self._make_room()
            if not self._running:
                if self._waiting and not self._loading:
                    continue  # just put back by `_make_room`, and alone it fits
                self._loop = None  # here, so that whoever comes next starts another
                return
            batch, context = len(self._running), self._context
            line = self._timing.decode_line(batch)
            step_ms = line.base_ms + line.per_token_ms * context
            # Timers are late; the steps after a late one are not, as long as they can catch up.
            due = max(due, begin - CATCH_UP_S) + step_ms / 1e3
            await self._sleep(max(0.0, due - now()))
            end = now()
            self._fit.observe((end - begin) * 1e3, batch, context)
            begin = end
            if self._fit.steps % SOLVE_STEPS == 1:
                self._step = self._fit.step
            self._emit()
            if self._die_after is not None and self._tokens >= self._die_after:
                self._die("died on purpose")
                return
            if self._stall_after is not None and self._tokens >= self._stall_after:
                await asyncio.get_running_loop().create_future()

    def _admit(self) -> None:
        """The first in the queue, as long as its KV fits and everybody can have one token more."""
        while self._waiting and len(self._running) + len(self._loading) < self._config.pool.max_running:
            stream = self._waiting[0]
            growth = len(stream.states) + len(self._running)
            if self._held + stream.context + growth > self._kv_tokens:
                return
            self._waiting.popleft()
            self._held += stream.context
            if stream.handoff_s:
                stream.phase = Phase.LOADING
                self._loading.add(stream)
                stream.handoff = asyncio.get_running_loop().create_task(self._hand_off(stream))
            else:
                stream.load_ms = 0.0
                self._run(stream)

    async def _hand_off(self, stream: Stream) -> None:
        await self._sleep(stream.handoff_s)
        stream.load_ms = stream.handoff_s * 1e3
        self._loading.discard(stream)
        self._run(stream)
        self._kick()

    def _run(self, stream: Stream) -> None:
        if ticket := stream.ticket:
            self._ledger.admit(ticket.ticket_id)
            self._ledger.copied(load_record(ticket, stream.handoff_s * 1e3))
        stream.phase = Phase.RUNNING
        self._running.append(stream)
        self._context += stream.context

    def _make_room(self) -> None:
        """For one more token of each sequence: the newest request gives way and is read in again later."""
        while self._running:
            growth = sum([len(stream.states) for stream in self._running])
            if self._held + growth <= self._kv_tokens:
                return
            stream = self._running.pop()
            self._held -= stream.context
            self._context -= stream.context
            stream.phase = Phase.WAITING
            self._waiting.appendleft(stream)
            self.preempted += 1

    def _emit(self) -> None:
        """One token for every sequence that runs; what has its last one makes room before the reading."""
        batch = self._running
        vocab = self._vocab
        ended = False
        for stream in batch:
            width = len(stream.states)
            stream.context += width
            stream.left -= 1
            self._held += width
            self._context += width
            self._tokens += width
            if stream.left == 0:
                ended = True
                stream.phase = Phase.OVER
                self._held -= stream.context
                self._context -= stream.context
        if ended:
            self._running = [stream for stream in batch if stream.left]
        load = self.load()
        for stream in batch:
            last = stream.left == 0
            deltas = []
            for index, state in enumerate(stream.states):
                token = next_token(state, vocab)
                stream.states[index] = extend(state, token)
                deltas.append(delta(index, token, last))
            stream.frames.append(TokenFrame(tuple(deltas), last, load, stream.load_ms))
            stream.load_ms = None
            stream.wake()

    def _leave(self, stream: Stream) -> None:
        """Its reader is gone, or has its last frame."""
        phase, stream.phase = stream.phase, Phase.OVER
        if stream.ticket:
            self._ledger.end(stream.ticket.ticket_id, Outcome.RELEASED, self._clock())
        if phase is Phase.WAITING:
            self._waiting.remove(stream)
        elif phase is Phase.LOADING and stream.handoff is not None:
            stream.handoff.cancel()
            self._loading.discard(stream)
            self._held -= stream.context
        elif phase is Phase.RUNNING:
            self._running.remove(stream)
            self._held -= stream.context
            self._context -= stream.context
        if self._waiting and not self.death:
            self._kick()

    def _die(self, reason: str) -> None:
        self.death = reason
        for stream in [*self._waiting, *self._loading, *self._running]:
            stream.wake()

    def stop(self) -> None:
        """Ends the step loop and all handoffs; streams that are open fail."""
        self._die(self.death or "stopped")
        for task in [self._loop, *(stream.handoff for stream in self._loading)]:
            if task is not None:
                task.cancel()

    def load(self) -> Load:
        """What waits and runs."""
        self._sequence += 1
        return Load(
            replica=self._config.replica,
            running=len(self._running),
            waiting=len(self._waiting) + len(self._loading),
            queued_prompt_tokens=0,
            kv_use=self._held / self._kv_tokens,
            sequence=self._sequence,
            max_running=self._config.pool.max_running,
            context_tokens=self._context,
            kv_tokens=self._kv_tokens,
            tpot_ms=self._fit.tpot_ms,
            step=self._step,
            shares=tuple(self._shares.items()),
        )
