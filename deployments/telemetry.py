"""What an engine reports about itself after every step, and what its handoffs did."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

from kvtransfer.connector import announcements, copy_records
from kvtransfer.handoff import Announcement, CopyRecord
from router.step_clock import PrefillRate, StepFit

MAX_UNCLAIMED = 4096
"""Records of handoffs whose request was cancelled are never claimed; the oldest go first."""


class EngineTelemetry(StatLoggerBase):  # type: ignore[misc]
    """A vLLM stat logger (`vllm.v1.metrics.loggers`) that keeps the last step's figures in memory."""

    def __init__(self, on_record: Callable[[CopyRecord], None]) -> None:
        self.step = StepFit()
        self.prefill_rate = PrefillRate()
        self.kv_tokens = 0
        self.running = 0
        self.waiting = 0
        self.kv_use = 0.0
        self.steps = 0
        self._on_record = on_record
        self._records: OrderedDict[str, CopyRecord] = OrderedDict()
        self._awaited: dict[str, asyncio.Future[CopyRecord]] = {}
        self._expected: dict[str, asyncio.Future[Announcement]] = {}

    def factory(self, vllm_config: VllmConfig, engine_index: int = 0) -> "EngineTelemetry":
        """vLLM builds its loggers itself, so it gets this instance through a factory."""
        cache = vllm_config.cache_config
        self.kv_tokens = (cache.num_gpu_blocks or 0) * cache.block_size
        return self

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is None:
            return
        self.steps += 1
        self.running = scheduler_stats.num_running_reqs
        self.waiting = scheduler_stats.num_waiting_reqs
        self.kv_use = scheduler_stats.kv_cache_usage
        if iteration_stats is not None:
            self._time(iteration_stats)
        for record in copy_records(scheduler_stats.kv_connector_stats):
            self._keep(record)
        for announcement in announcements(scheduler_stats.kv_connector_stats):
            if (expected := self._expected.get(announcement.ticket_id)) and not expected.done():
                expected.set_result(announcement)

    @property
    def context_tokens(self) -> int:
        """Tokens whose KV is in use, to the block."""
        return int(self.kv_use * self.kv_tokens)

    def _time(self, stats: IterationStats) -> None:
        """What this step says about the engine's speed."""
        if latencies := stats.inter_token_latencies_iter:
            # All of a batch get their tokens in the same step; the median leaves out who was held up.
            self.step.observe(median(latencies) * 1e3, len(latencies), self.context_tokens)
        if finished := [done for done in stats.finished_requests if done.num_generation_tokens <= 1]:
            # Prompts that end in one step were computed together: their tokens add up, their time does not.
            tokens = sum(done.num_prompt_tokens - done.num_cached_tokens for done in finished)
            self.prefill_rate.observe(tokens, max(done.prefill_time for done in finished) * 1e3)

    def log_engine_initialized(self) -> None:
        """Nothing to say: the replica announces itself."""

    def claim(self, ticket_id: str) -> CopyRecord | None:
        """The record of a ticket's copy, once."""
        return self._records.pop(ticket_id, None)

    async def arrived(self, ticket_id: str, timeout_s: float) -> CopyRecord:
        """The same, waiting for it: it may come a moment after the output that it belongs to.

        Raises TimeoutError.
        """
        if record := self.claim(ticket_id):
            return record
        future = self._awaited[ticket_id] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(future, timeout_s)
        finally:
            del self._awaited[ticket_id]

    @contextmanager
    def expecting(self, ticket_id: str) -> Iterator[asyncio.Future[Announcement]]:
        """The announcement of a ticket, should there be one."""
        future = self._expected[ticket_id] = asyncio.get_running_loop().create_future()
        try:
            yield future
        finally:
            future.cancel()
            del self._expected[ticket_id]

    def _keep(self, record: CopyRecord) -> None:
        self._on_record(record)
        if (awaited := self._awaited.get(record.ticket_id)) and not awaited.done():
            awaited.set_result(record)
            return
        self._records[record.ticket_id] = record
        while len(self._records) > MAX_UNCLAIMED:
            self._records.popitem(last=False)
