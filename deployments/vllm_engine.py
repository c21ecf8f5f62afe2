"""The vLLM engine of a replica: prefills that end in tickets, and decodes that begin with them.

Not covered: multimodal prompts, prompt embeddings.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from vllm import SamplingParams
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from deployments.engine import EngineConfig, KvListener
from deployments.handoff_desk import HandoffDesk
from deployments.telemetry import EngineTelemetry
from deployments.vllm_decode import decode_sampling, delta
from deployments.vllm_runner import VllmRunner
from heliostat.errors import (
    HandoffFailedError,
    NoSpaceError,
    PrefillFailedError,
    TransportError,
)
from heliostat.spec import Connector
from heliostat.status import ReplicaStatus
from heliostat.wire import (
    Adapter,
    DecodeRequest,
    Load,
    PrefillRequest,
    PrefillResult,
    Role,
    Ticket,
    TokenFrame,
    adapted_domain,
)
from kvtransfer.handoff import Announcement, CopyRecord, HandoffParams, digest_tokens

Announce = Callable[[PrefillResult], None]

RECORD_S = 2.0
"""A save's record comes with the step that did it, at most a moment after its output."""


class VllmEngine:
    """`deployments.engine.Engine` around one vLLM."""

    def __init__(self, config: EngineConfig, on_kv: KvListener | None = None) -> None:
        self._config = config
        self._connector = config.transfer.connector
        self._desk = HandoffDesk(config)
        self._telemetry = EngineTelemetry(self._desk.copied)
        self._vllm = VllmRunner(config, self._telemetry, on_kv)
        self._queued_prompt_tokens = 0
        self._shares: Counter[str] = Counter()
        self._computing: dict[str, asyncio.Event] = {}

    async def start(self) -> None:
        await self._vllm.start()
        if self._config.role is Role.PREFILL and self._connector is None:
            await self._desk.open()

    async def load_adapter(self, adapter: Adapter) -> None:
        await self._vllm.load_adapter(adapter)

    async def drop_adapter(self, digest: str) -> None:
        await self._vllm.drop_adapter(digest)

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        return await self._prefill(request, None)

    async def _prefill(self, request: PrefillRequest, announce: Announce | None) -> PrefillResult:
        """Prompts that were computed, or are just being computed for somebody else, are only shared."""
        if self._connector is not None:
            return await self._prefill_raw(request, self._connector)
        num_tokens = len(request.token_ids)
        domain = adapted_domain(self._config.domain, request.adapter)
        digest = digest_tokens(request.token_ids, domain)
        self._queued_prompt_tokens += num_tokens
        try:
            while True:
                if ticket := await self._desk.share(digest):
                    return PrefillResult(ticket, self.load(), num_tokens, 0.0)
                if computing := self._computing.get(digest):
                    await computing.wait()
                    continue
                done = self._computing[digest] = asyncio.Event()
                try:
                    return await self._compute(
                        request, self._desk.new_params(domain, digest, num_tokens), announce
                    )
                except NoSpaceError as error:
                    no_room = error
                finally:
                    del self._computing[digest]
                    done.set()
                # Decode replicas are behind. Computed again later, the prompt comes from the cache.
                if not await self._desk.room_comes(lambda: bool(self._computing)):
                    raise no_room
        except TransportError as error:
            raise PrefillFailedError(f"{self._config.replica}: {error}") from error
        finally:
            self._queued_prompt_tokens -= num_tokens

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        announced: asyncio.Queue[PrefillResult] = asyncio.Queue()
        prefill = asyncio.create_task(self._prefill(request, announced.put_nowait))
        first = asyncio.create_task(announced.get())
        try:
            await asyncio.wait({prefill, first}, return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                yield first.result()
            yield await prefill
        finally:
            for task in (first, prefill):
                task.cancel()
            await asyncio.wait({first, prefill})

    async def _compute(
        self, request: PrefillRequest, params: HandoffParams, announce: Announce | None
    ) -> PrefillResult:
        finished = False
        try:
            with self._telemetry.expecting(params.ticket_id) as announcement:
                if announce is not None:
                    announcement.add_done_callback(
                        lambda done: done.cancelled() or announce(self._streamed(params, done.result()))
                    )
                output = await self._run_prefill(request, params.encode())
            if output is None or output.outputs[0].finish_reason == "error":
                raise PrefillFailedError(f"{self._config.replica}: the engine failed the prefill")
            record = await self._publication(params.ticket_id)
            finished = True
        finally:
            if not finished:
                # A cancel may land just after the copy; nobody else knows this ticket's name.
                self._desk.discard(params.ticket_id)
        ticket = self._desk.commit(params, record)
        return PrefillResult(ticket, self.load(), output.num_cached_tokens or 0, record.ms)

    async def _prefill_raw(self, request: PrefillRequest, connector: Connector) -> PrefillResult:
        """Over a connector that is not ours: what it answers is all that the decode leg gets."""
        output = await self._run_prefill(request, connector.prefill_params)
        if output is None or output.outputs[0].finish_reason == "error":
            raise PrefillFailedError(f"{self._config.replica}: the engine failed the prefill")
        ticket = self._desk.hand_through(connector.name, request, output.kv_transfer_params or {})
        return PrefillResult(ticket, self.load(), output.num_cached_tokens or 0, 0.0)

    def _streamed(self, params: HandoffParams, announcement: Announcement) -> PrefillResult:
        ticket = self._desk.announce(params, announcement)
        return PrefillResult(ticket, self.load(), announcement.cached_tokens, 0.0)

    async def _publication(self, ticket_id: str) -> CopyRecord:
        """What the worker's copy did. Raises NoSpaceError or PrefillFailedError when no KV was published."""
        try:
            record = await self._telemetry.arrived(ticket_id, RECORD_S)
        except TimeoutError as error:
            raise PrefillFailedError(f"{self._config.replica}: the engine did not save the KV") from error
        if record.kind == NoSpaceError.kind:
            raise NoSpaceError(record.failure or "")
        if record.failure is not None:
            raise PrefillFailedError(f"{self._config.replica}: no KV was published: {record.failure}")
        return record

    async def _run_prefill(
        self, request: PrefillRequest, kv_transfer_params: Mapping[str, object]
    ) -> RequestOutput | None:
        """Compute the prompt; the one token that vLLM must sample is thrown away."""
        sampling = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={"kv_transfer_params": dict(kv_transfer_params)},
        )
        last = None
        outputs = self._vllm.run(request, request.token_ids, sampling, PrefillFailedError)
        async with aclosing(outputs):
            async for output in outputs:
                last = output
        return last

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        ticket = request.ticket
        if ticket is not None and ticket.raw is not None:
            ticket = None  # nothing of it is ours to check, to book or to release
        elif ticket is not None:
            self._check_ticket(ticket, request)
        elif len(request.token_ids) > 1 and not self._config.pool.icarus:
            raise HandoffFailedError(f"{self._config.replica}: a prompt of several tokens needs a ticket")
        sampling = decode_sampling(request)
        # Tokens that a lost replica generated follow the prompt: this module runs x_N and them, and the
        # connector loads the KV of x_1 … x_{N-1} as ever (rule 6).
        token_ids = [*request.token_ids, *request.generated]
        unread = set(range(sampling.n))
        tells_cached = ticket is None
        self._shares[request.model] += 1
        if ticket is not None:
            self._desk.admit(ticket)
        try:
            async with aclosing(self._vllm.run(request, token_ids, sampling, HandoffFailedError)) as outputs:
                async for output in outputs:
                    if any(sequence.finish_reason == "error" for sequence in output.outputs):
                        raise self._failure(ticket)
                    load_ms = self._note_load(ticket, unread, output) if ticket and unread else None
                    cached_tokens = (output.num_cached_tokens or 0) if tells_cached else None
                    tells_cached = False
                    deltas = tuple(map(delta, output.outputs))
                    yield TokenFrame(deltas, output.finished, self.load(), load_ms, cached_tokens)
        finally:
            self._shares[request.model] -= 1
            if ticket is not None:
                self._desk.done(ticket)

    def _note_load(self, ticket: Ticket, unread: set[int], output: RequestOutput) -> float | None:
        """What the load took, ms, where it is known now. `unread` are the sequences without a token.

        Each of the n sequences loads the KV by itself; once all have a token, nobody needs its name.
        """
        record = self._telemetry.claim(ticket.ticket_id)
        unread -= {sequence.index for sequence in output.outputs}
        if not unread:
            self._desk.admitted(ticket)
        return record.ms if record else None

    def _check_ticket(self, ticket: Ticket, request: DecodeRequest) -> None:
        digest = digest_tokens(request.token_ids[:-1], ticket.domain)
        if ticket.num_tokens != len(request.token_ids) - 1 or ticket.prefix_digest != digest:
            raise HandoffFailedError(f"ticket {ticket.ticket_id} stands for the KV of another prompt")

    def _failure(self, ticket: Ticket | None) -> HandoffFailedError:
        record = self._telemetry.claim(ticket.ticket_id) if ticket else None
        reason = record.failure if record and record.failure else "the engine failed the request"
        return HandoffFailedError(f"{self._config.replica}: {reason}")

    async def release(self, ticket_id: str) -> bool:
        return await self._desk.withdraw(ticket_id)

    async def sweep(self) -> None:
        await self._desk.sweep()

    def load(self) -> Load:
        return Load(
            replica=self._config.replica,
            running=self._telemetry.running,
            waiting=self._telemetry.waiting,
            queued_prompt_tokens=self._queued_prompt_tokens,
            kv_use=self._telemetry.kv_use,
            sequence=self._telemetry.steps,
            max_running=self._config.pool.max_running,
            context_tokens=self._telemetry.context_tokens,
            kv_tokens=self._telemetry.kv_tokens,
            tpot_ms=self._telemetry.step.tpot_ms,
            step=self._telemetry.step.step,
            prefill_tokens_per_s=self._telemetry.prefill_rate.tokens_per_s,
            shares=tuple((model, count) for model, count in self._shares.items() if count),
            domain=self._config.domain if self._config.caches_prefixes else "",
        )

    async def check_health(self) -> None:
        await self._vllm.check_health()

    async def status(self, pid: int) -> ReplicaStatus:
        """`load` for people, with what the handoffs cost so far."""
        return ReplicaStatus.of(self.load(), await self._desk.figures(), pid)

    def stop(self) -> None:
        self._vllm.stop()
