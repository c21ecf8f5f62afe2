"""The prefill half of a `sim` engine: one prompt at a time, a prefix cache, tickets with leases."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from deployments.engine import EngineConfig, KvListener
from heliostat.errors import PrefillFailedError
from heliostat.wire import Load, PrefillRequest, PrefillResult, Ticket, adapted_domain
from kvtransfer.handoff import digest_tokens
from kvtransfer.ledger import Ledger
from kvtransfer.transport import Outcome
from router.prefix_index import BLOCK_TOKENS, PrefixIndex
from router.step_clock import PrefillRate
from simulator.engine.kv_space import KvSpace
from simulator.profile import ReplicaTiming
from simulator.timing import Chunk


class SimPrefill:
    """Prompts are computed in the order in which they came."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        replica: ReplicaTiming,
        ledger: Ledger,
        fail_containing: int | None,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
        on_kv: KvListener | None,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._timing = replica.timing
        self._kv_tokens = replica.kv_tokens
        self._kv_bytes_per_token = replica.kv_bytes_per_token
        self._fail_containing = fail_containing
        self._sleep = sleep
        self._clock = clock
        self._on_kv = on_kv
        # Blocks are named as the router names them; the index itself stays empty.
        self._names = PrefixIndex(0)
        self._space = KvSpace(replica.kv_tokens // BLOCK_TOKENS * BLOCK_TOKENS, BLOCK_TOKENS)
        self._rate = PrefillRate(clock)
        self._turn = asyncio.Lock()
        self._computing_tokens = 0
        self._queued_prompt_tokens = 0
        self._shares: Counter[str] = Counter()
        self._leases: dict[str, float] = {}
        self._tickets = 0
        self._sequence = 0

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        """Raises PrefillFailedError."""
        domain = adapted_domain(self._config.domain, request.adapter)
        blocks = self._names.hashes(domain, request.token_ids)
        num_tokens = len(request.token_ids)
        with self._accepted(request.model, num_tokens - self._cached_tokens(blocks, num_tokens)):
            async with self._turn:
                if self._fail_containing is not None and self._fail_containing in request.token_ids:
                    replica = self._config.replica
                    raise PrefillFailedError(f"{replica}: the prefill failed on purpose", replica)
                # Looked up again: a prompt that was computed meanwhile may have begun alike.
                cached = self._cached_tokens(blocks, num_tokens)
                await self._compute(num_tokens - cached, num_tokens)
                self._keep(blocks)
        return PrefillResult(self._ticket(request, domain), self.load(), cached, 0.0)

    def _cached_tokens(self, blocks: Sequence[int], num_tokens: int) -> int:
        return min(self._space.matched(blocks) * BLOCK_TOKENS, num_tokens)

    def _keep(self, blocks: Sequence[int]) -> None:
        """These have been computed, and are in use until now; what is not may have to go."""
        held = self._space.matched(blocks)
        self._space.hold(blocks[:held])
        self._space.claim((len(blocks) - held) * BLOCK_TOKENS)
        added = self._space.publish(blocks[held:])
        self._space.release(blocks)
        self._space.claim(0)  # a prompt that is larger than the space loses its end at once
        dropped = self._space.take_dropped()
        gone = set(dropped)
        added = [block for block in added if block not in gone]
        if self._on_kv is not None and (added or dropped):
            self._on_kv(self._config.replica, added, dropped)

    @contextmanager
    def _accepted(self, model: str, uncached_tokens: int) -> Iterator[None]:
        self._queued_prompt_tokens += uncached_tokens
        self._shares[model] += 1
        try:
            yield
        finally:
            self._queued_prompt_tokens -= uncached_tokens
            self._shares[model] -= 1
            if not self._shares[model]:
                del self._shares[model]

    async def _compute(self, uncached_tokens: int, num_tokens: int) -> None:
        cached_tokens = num_tokens - uncached_tokens
        took_ms = (
            self._timing.step_ms(0, 0, [Chunk(uncached_tokens, cached_tokens)]) if uncached_tokens else 0.0
        )
        if not took_ms:
            return
        now = asyncio.get_running_loop().time
        begin = now()
        self._computing_tokens = num_tokens
        try:
            await self._sleep(took_ms / 1e3)
        finally:
            self._computing_tokens = 0
        self._rate.observe(uncached_tokens, (now() - begin) * 1e3)

    def _ticket(self, request: PrefillRequest, domain: str) -> Ticket:
        self._tickets += 1
        ticket_id = f"{self._config.owner}-{self._tickets}"
        num_tokens = len(request.token_ids)
        num_blocks = -(-num_tokens // BLOCK_TOKENS)
        now_s, lease_s = self._clock(), self._config.transfer.lease_s
        expires_at_s = self._leases[ticket_id] = now_s + lease_s
        self._ledger.commit(ticket_id, domain, num_blocks, now_s, lease_s)
        return Ticket(
            ticket_id=ticket_id,
            transport=self._config.transfer.transport,
            address=self._config.replica,
            domain=domain,
            prefix_digest=digest_tokens(request.token_ids, domain),
            num_tokens=num_tokens,
            num_blocks=num_blocks,
            num_bytes=num_tokens * self._kv_bytes_per_token,
            owner=self._config.replica,
            expires_at_s=expires_at_s,
        )

    def release(self, ticket_id: str) -> bool:
        """True if there was such a ticket."""
        self._ledger.end(ticket_id, Outcome.RELEASED, self._clock())
        return self._leases.pop(ticket_id, None) is not None

    def sweep(self) -> None:
        """Forget tickets whose lease has ended; those that were read end the same way."""
        now = self._clock()
        # In the order of their leases, which are all equally long.
        while self._leases and next(iter(self._leases.values())) < now:
            ticket_id = next(iter(self._leases))
            del self._leases[ticket_id]
            self._ledger.end(ticket_id, Outcome.ADMITTED, now)

    def load(self) -> Load:
        """What is queued and being computed."""
        self._sequence += 1
        inside = self._shares.total()
        running = 1 if self._computing_tokens else 0
        return Load(
            replica=self._config.replica,
            running=running,
            waiting=inside - running,
            queued_prompt_tokens=self._queued_prompt_tokens,
            kv_use=min(1.0, self._computing_tokens / self._kv_tokens),
            sequence=self._sequence,
            max_running=self._config.pool.max_running,
            kv_tokens=self._kv_tokens,
            prefill_tokens_per_s=self._rate.tokens_per_s,
            shares=tuple(self._shares.items()),
            domain=self._config.domain,
        )
