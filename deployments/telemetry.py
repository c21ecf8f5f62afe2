"""What an engine reports about itself after every step, and what its handoffs did."""

from collections import OrderedDict

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

from kvtransfer.connector import copy_records
from kvtransfer.handoff import CopyRecord

MAX_UNCLAIMED = 4096
"""Records of handoffs whose request was cancelled are never claimed; the oldest go first."""


class EngineTelemetry(StatLoggerBase):  # type: ignore[misc]
    """A vLLM stat logger (`vllm.v1.metrics.loggers`) that keeps the last step's figures in memory."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        self.kv_use = 0.0
        self.steps = 0
        self._records: OrderedDict[str, CopyRecord] = OrderedDict()
        self.handoff_bytes = 0
        self.handoff_ms = 0.0
        self.handoffs = 0
        self.handoff_failures = 0

    def factory(self, vllm_config: VllmConfig, engine_index: int = 0) -> "EngineTelemetry":
        """vLLM builds its loggers itself, so it gets this instance through a factory."""
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
        for record in copy_records(scheduler_stats.kv_connector_stats):
            self._keep(record)

    def log_engine_initialized(self) -> None:
        """Nothing to say: the replica announces itself."""

    def claim(self, ticket_id: str) -> CopyRecord | None:
        """The record of a ticket's copy, once."""
        return self._records.pop(ticket_id, None)

    def _keep(self, record: CopyRecord) -> None:
        self.handoffs += 1
        self.handoff_bytes += record.num_bytes
        self.handoff_ms += record.ms
        self.handoff_failures += record.failure is not None
        self._records[record.ticket_id] = record
        while len(self._records) > MAX_UNCLAIMED:
            self._records.popitem(last=False)
