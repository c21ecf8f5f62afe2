"""What `/status` answers: pools, their replicas and models, as JSON."""

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from heliostat.role import Role

if TYPE_CHECKING:  # who only reads a status needs no msgspec
    from heliostat.wire import Load


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class HandoffFigures(_Frozen):
    """One replica's handoffs of one KV domain so far, over one transport.

    A ticket is `committed` (its KV is whole; for a reader: it arrived), then `admitted` (its KV was
    read) or not, and over when it was `released` or `expired`; `open` are not over. `copies` counts
    copies of KV, also repeated ones, `num_bytes` and `ms` what they moved and took, `hidden_ms` the part
    that passed while the prefill still computed. `stranded_block_s`: blocks times seconds of KV that
    was kept for a reader who never came. `failures` are by class (`TransportError.kind`).
    """

    transport: str
    domain: str
    open: int
    committed: int
    admitted: int
    released: int
    expired: int
    copies: int
    num_bytes: int
    ms: float
    hidden_ms: float
    stranded_block_s: float
    failures: dict[str, int]

    @property
    def gb_per_s(self) -> float:
        """Bandwidth of the copies alone; 0 before the first."""
        return self.num_bytes / self.ms / 1e6 if self.ms else 0.0


class ReplicaStatus(_Frozen):
    """One replica: requests waiting and running, KV blocks in use (0 to 1), its handoffs so far, and the
    digest of its weights, by which an upgrade tells old from new.

    `max_running` is how many it computes at a time (0: not known). `tpot_ms` is the time of a decode step
    now, `prefill_tokens_per_s` what it computes of prompts while it computes; both 0 before the first.
    `shares` counts the requests in it, by model, from whichever router they came.
    """

    name: str
    waiting: int
    running: int
    queued_prompt_tokens: int
    kv_use: float
    handoffs: tuple[HandoffFigures, ...]
    pid: int
    weights: str = ""
    max_running: int = 0
    tpot_ms: float = 0.0
    prefill_tokens_per_s: float = 0.0
    shares: dict[str, int] = {}

    @classmethod
    def of(cls, load: "Load", handoffs: tuple[HandoffFigures, ...], pid: int) -> Self:
        """What a replica's load says to people."""
        return cls(
            name=load.replica,
            waiting=load.waiting,
            running=load.running,
            queued_prompt_tokens=load.queued_prompt_tokens,
            kv_use=load.kv_use,
            handoffs=handoffs,
            pid=pid,
            max_running=load.max_running,
            tpot_ms=load.tpot_ms,
            prefill_tokens_per_s=load.prefill_tokens_per_s,
            shares=dict(load.shares),
        )

    @property
    def copies(self) -> int:
        """Over all KV domains."""
        return sum(figures.copies for figures in self.handoffs)

    @property
    def copied_bytes(self) -> int:
        """Over all KV domains."""
        return sum(figures.num_bytes for figures in self.handoffs)

    @property
    def copy_ms(self) -> float:
        """Over all KV domains."""
        return sum(figures.ms for figures in self.handoffs)

    @property
    def failures(self) -> int:
        """Over all KV domains and classes."""
        return sum(sum(figures.failures.values()) for figures in self.handoffs)


class PoolStatus(_Frozen):
    """One pool: replicas that answer now, and why it cannot be used if none does."""

    role: Role
    name: str
    models: tuple[str, ...]
    replicas: tuple[ReplicaStatus, ...]
    problem: str | None


class LiveCounts(_Frozen):
    """One model at the door of one router: `queued` and `running` are now, all else is since that started.

    Counted as it happens, while the rest of `ModelStatus` is written when a request is over: the
    difference of two answers is a rate. `admitted` counts requests that got a slot, and `prompt_tokens`
    theirs; `refused` counts every 429.
    """

    queued: int = 0
    running: int = 0
    admitted: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


class ModelStatus(_Frozen):
    """One model in one router since that started: requests by outcome, tokens, and how long they took.

    `cached_tokens` of the prompt tokens came from a prefix cache, `cross_model_tokens` of those because
    another model had brought them there. Times are estimates from buckets; 0 before the
    first request.
    """

    name: str
    requests: dict[str, int]
    prompt_tokens: int
    cached_tokens: int
    cross_model_tokens: int
    output_tokens: int
    ttft_p50_ms: float
    ttft_p95_ms: float
    tpot_p50_ms: float
    tpot_p95_ms: float
    live: LiveCounts = LiveCounts()


class RouterStatus(_Frozen):
    """The router replica that answers: `streams` it has open, and how late its event loop runs.

    `loop_stall_p99_ms`: 99 of 100 timers of the last 30 s were no later than that. `name` tells the
    `replicas` routers of the cluster apart; another answer may come from another one.
    """

    pid: int
    name: str = ""
    replicas: int = 1
    streams: int
    loop_stall_p99_ms: float


class ClusterStatus(_Frozen):
    """The whole cluster as one router sees it; `ready` when every pool has a replica."""

    version: str
    ready: bool
    pools: tuple[PoolStatus, ...]
    models: tuple[ModelStatus, ...] = ()
    router: RouterStatus | None = None
