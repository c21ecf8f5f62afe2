"""One simulated replica: what vLLM's scheduler does, step by step where needed, else in closed form.

    submit ─> waiting ─> (KV space claimed) ─┬─> loading (handoff) ─┬─> batch ─> done
                                             └─> computing (chunks) ┘

One class plays all roles, because the requests decide: a prefill replica gets jobs without output, a decode
replica jobs whose KV arrives over a link, an engine without disaggregation jobs that it computes and decodes.

- Continuous batching: who comes during a step joins at its end; at most `max_running` requests are inside.
- Chunked prefill: prompts are computed first come first served, in chunks of what the decode rows leave of
  `max_batched_tokens`; a step with chunks is one event.
- Steps that only decode are one event until the batch changes (`simulator.engine.run`).
- When the KV space is full, the newest request gives way; it loads (or computes) its KV again, and
  what it had generated is computed as forced input.

Not covered: speculative decoding, swapping KV to the host, and what a partly filled block wastes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from heliostat.wire import Load
from router.scaling import Served
from simulator.engine.batch import Batch
from simulator.engine.holdings import Holdings
from simulator.engine.host import Host
from simulator.engine.job import Job
from simulator.engine.kv_space import KvSpace
from simulator.engine.link import Link
from simulator.engine.meter import Meter
from simulator.engine.profile import Profile
from simulator.engine.run import Run
from simulator.timing.base import Chunk


class Engine:
    """Runs on the event loop that is current when it is made, which gives it the time.

    What it answers is heard `reply_s` later. `on_load` hears the load at the end of the first step after
    every change of the batch, as token frames carry it; `on_kv` hears which named blocks came and went.
    """

    def __init__(
        self,
        name: str,
        profile: Profile,
        *,
        on_load: Callable[[Load], None] | None = None,
        on_kv: Callable[[str, Sequence[int], Sequence[int]], None] | None = None,
        host: Host | None = None,
        reply_s: float = 0.0,
    ) -> None:
        self.name = name
        self.profile = profile
        self.link = Link()
        self.preemptions = 0
        self.served = Served()
        """Prompts that it has computed, or decode legs that are over."""
        self.changes = 0
        """Grows whenever its load is another one, but for what the steps of a run add to the context."""
        self._loop = asyncio.get_running_loop()
        self._on_load = on_load
        self._reply_s = reply_s
        self._host = host
        self._cores = 0.0
        if host is not None:
            host.joined(self._interrupt)
        self._kv = Holdings(
            KvSpace(profile.kv_tokens, profile.block_tokens),
            keeps_prefixes=profile.keeps_prefixes,
            on_kv=partial(on_kv, name) if on_kv is not None else None,
        )
        self._waiting: deque[Job] = deque()
        self._prefilling: list[Job] = []
        self._loading = 0
        self._ready: list[Job] = []
        self._batch = Batch()
        self._orders = 0
        self._queued_prompt_tokens = 0
        self._timer: asyncio.TimerHandle | None = None
        self._run: Run | None = None
        self._run_steps = 0
        self._changed = False
        self.meter = Meter(self._loop.time)
        self._sequence = 0

    # What the cluster asks.

    def submit(self, job: Job) -> None:
        """Takes a job; `job.done` says when it is over."""
        self.changes += 1
        if job.fetch is None:
            cached = self.cached_tokens(job.blocks)
            job.uncached_tokens = job.prompt_tokens - min(cached, job.prompt_tokens - 1)
        self._queued_prompt_tokens += job.uncached_tokens
        self._orders += 1
        job.order = self._orders
        self._waiting.append(job)
        if self._timer is None:
            self._plan()
        elif job.fetch is not None:
            self._admit_ahead()
        else:
            self._interrupt()

    def cached_tokens(self, blocks: Sequence[int]) -> int:
        """Tokens of a prompt that begins with these blocks which need not be computed here."""
        return self._kv.cached_tokens(blocks)

    def load(self) -> Load:
        """What the replica would say now."""
        self._sequence += 1
        profile, batch = self.profile, len(self._batch)
        steps = self._run.ended(self._loop.time()) if self._run else 0
        return Load(
            replica=self.name,
            running=batch + len(self._prefilling),
            waiting=len(self._waiting) + self._loading + len(self._ready),
            queued_prompt_tokens=self._queued_prompt_tokens,
            kv_use=min(1.0, (self._kv.in_use + steps * batch) / profile.kv_tokens),
            sequence=self._sequence,
            max_running=profile.max_running,
            context_tokens=self._batch.context + steps * batch,
            kv_tokens=profile.kv_tokens,
            tpot_ms=self.meter.tpot_ms,
            step=self.meter.step,
            prefill_tokens_per_s=self.meter.prefill_tokens_per_s,
        )

    def report_progress(self) -> None:
        """Tells admission how many tokens its requests have by now."""
        steps = self._run.ended(self._loop.time()) if self._run else 0
        for job, generated in self._batch.generated(steps):
            job.tell(generated)

    @property
    def idle(self) -> bool:
        """Nothing is inside."""
        return self._timer is None and not self._waiting and not self._loading

    # Letting in.

    def _admit(self, begin_s: float, growth: int = 0) -> None:
        """The first in the queue, as long as its KV fits and everybody can have one token more.

        `growth`: tokens that the batch will have taken by `begin_s`.
        """
        while self._waiting and self._inside < self.profile.max_running:
            if not self._enter(self._waiting[0], begin_s, growth):
                return
            self._waiting.popleft()

    def _admit_ahead(self) -> None:
        """At the next boundary of a run, without ending it: who loads does not change what the batch does."""
        run, batch = self._run, len(self._batch)
        if run is None:
            return
        steps = min(run.ended(self._loop.time()) + 1, self._run_steps)
        self._admit(run.start_s + run.seconds(steps), steps * batch)
        self._shorten(max(steps, self._kv.free // batch))

    @property
    def _inside(self) -> int:
        return len(self._batch) + len(self._prefilling) + self._loading + len(self._ready)

    def _enter(self, job: Job, begin_s: float, growth: int) -> bool:
        if not self._kv.enter(job, reserve=len(self._batch) + 1 + growth):
            return False
        shared = self._kv.shared_tokens(job)
        if job.fetch is not None:
            self._loading += 1
            self._loop.call_at(job.fetch(begin_s, job.prompt_tokens - shared), self._arrived, job)
            return True
        # One token at least is computed, because the last one has to be run.
        job.computed, job.target = min(shared, job.context - 1), job.context
        if not job.preempted:
            job.cached_tokens = job.computed
        self._prefilling.append(job)
        return True

    def _arrived(self, job: Job) -> None:
        self.changes += 1
        self._loading -= 1
        self._kv.publish(job, job.blocks)
        if job.generated:  # what was generated before a preemption is forced input now
            job.computed, job.target = job.prompt_tokens, job.context
            self._prefilling.append(job)
        else:
            self._ready.append(job)
        if self._timer is None:
            self._plan()
        else:
            self._interrupt()

    # Steps.

    def _plan(self) -> None:
        """At the end of a step, or out of idleness: what comes next."""
        self.changes += 1
        now = self._loop.time()
        self._timer, self._run = None, None
        self._admit(now)
        joined = self._join_ready()
        self._make_room(joined)
        chunks = self._chunks()
        if not chunks and not self._batch:
            self._take_cores(0.0)
            self._tell_load(now)
            return
        batch = len(self._batch)
        slow = 1.0
        if self._host is not None:
            # Of the empty context, so that the share is the same as long as the batch is.
            step_ms = self.profile.timing.decode_line(batch).base_ms if batch else 0.0
            self._take_cores(self._host.share(batch, step_ms))
            slow = self._host.slow
        if chunks:
            parts = [chunk for _, chunk in chunks]
            step_ms = self.profile.timing.step_ms(batch, self._batch.context, parts) * slow
            first_s = now + step_ms / 1e3
            self._timer = self._loop.call_at(first_s, self._end_step, chunks, step_ms)
        else:
            run = Run(now, batch, self._batch.context, self.profile.timing.decode_line(batch), slow)
            self._run = run
            self._run_steps = min(self._batch.steps_left, self._kv.free // batch)
            first_s = now + run.seconds(1)
            self._timer = self._loop.call_at(now + run.seconds(self._run_steps), self._end_run)
        for job in joined:
            if not job.first_s:
                job.first_s = first_s
        self._tell_load(first_s)

    def _take_cores(self, cores: float) -> None:
        if self._host is not None and cores != self._cores:
            more, self._cores = cores - self._cores, cores
            self._host.changed(more)

    def _interrupt(self) -> None:
        """Plan again at the end of the step that runs now, because something has changed."""
        if self._run is not None:
            self._shorten(self._run.ended(self._loop.time()) + 1)

    def _shorten(self, steps: int) -> None:
        """The run that is on has so many steps at most."""
        run = self._run
        if run is not None and self._timer is not None and steps < self._run_steps:
            self._timer.cancel()
            self._run_steps = steps
            self._timer = self._loop.call_at(run.start_s + run.seconds(steps), self._end_run)

    def _end_run(self) -> None:
        run = self._run
        assert run is not None
        self.meter.ran(run, self._run_steps)
        self._advance(self._run_steps)
        self._plan()

    def _end_step(self, chunks: list[tuple[Job, Chunk]], step_ms: float) -> None:
        new_tokens = sum(chunk.new_tokens for _, chunk in chunks)
        self.meter.computed(len(self._batch), new_tokens, step_ms)
        self._advance(1)
        for job, chunk in chunks:
            job.computed += chunk.new_tokens
            if job.computed == job.target:
                self._computed(job)
        self._kv.tell()
        self._plan()

    def _chunks(self) -> list[tuple[Job, Chunk]]:
        budget = self.profile.max_batched_tokens - len(self._batch)
        chunks = []
        for job in self._prefilling:
            if budget < 1:
                break
            new_tokens = min(budget, job.target - job.computed)
            budget -= new_tokens
            chunks.append((job, Chunk(new_tokens, job.computed)))
        return chunks

    def _join_ready(self) -> list[Job]:
        joined, self._ready = self._ready, []
        for job in joined:
            self._batch.join(job)
        self._changed = self._changed or bool(joined)
        return joined

    def _advance(self, steps: int) -> None:
        """So many tokens more for everybody in the batch; who has the last one leaves."""
        if not self._batch:
            return
        self._kv.grow(steps * len(self._batch))
        for job in self._batch.advance(steps):
            self._finish(job)
            self._changed = True
        self._kv.tell()

    def _computed(self, job: Job) -> None:
        """Its prompt is in the KV space, and one step has sampled from it, unless it is for elsewhere."""
        self._prefilling.remove(job)
        self._queued_prompt_tokens -= job.uncached_tokens
        job.uncached_tokens = 0
        if job.fetch is None and not job.preempted:
            self.served = self.served.with_prompt(job.prompt_tokens, job.cached_tokens)
        self._kv.publish(job, job.blocks)
        if not job.output_tokens:
            self._finish(job)
            return
        job.first_s = job.first_s or self._loop.time()
        job.generated += 1
        job.private += 1
        self._kv.grow(1)
        if job.generated == job.output_tokens:
            self._finish(job)
        else:
            self._ready.append(job)

    def _finish(self, job: Job) -> None:
        self._kv.publish(job, job.kept)
        self._kv.leave(job)
        job.tell(job.generated)
        job.end_s = self._loop.time()
        if job.fetch is not None:
            self.served += Served(requests=1)
        self._loop.call_at(job.end_s + self._reply_s, job.answer)

    def _make_room(self, joined: list[Job]) -> None:
        """For one more token of each request: the newest gives way, also one that has just joined."""
        while self._batch and self._kv.free < len(self._batch):
            job = self._batch.drop_newest()
            self._kv.leave(job)
            job.preempted += 1
            self.preemptions += 1
            self._waiting.appendleft(job)
            if job in joined:
                joined.remove(job)
            self._changed = True

    # Telling.

    def _tell_load(self, at_s: float) -> None:
        if self._changed and self._on_load is not None:
            self._loop.call_at(at_s + self._reply_s, self._say_load)
        self._changed = False

    def _say_load(self) -> None:
        if self._on_load is not None:
            self._on_load(self.load())
