"""What `/status` answers: pools, their replicas and models, as JSON."""

from pydantic import BaseModel, ConfigDict

from heliostat.wire import Role


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ReplicaStatus(_Frozen):
    """One replica: requests waiting and running, KV blocks in use (0 to 1), and its handoffs so far."""

    name: str
    waiting: int
    running: int
    queued_prompt_tokens: int
    kv_use: float
    handoffs: int
    handoff_failures: int
    handoff_bytes: int
    handoff_ms: float
    pid: int


class PoolStatus(_Frozen):
    """One pool: replicas that answer now, and why it cannot be used if none does."""

    role: Role
    name: str
    models: tuple[str, ...]
    replicas: tuple[ReplicaStatus, ...]
    problem: str | None


class ClusterStatus(_Frozen):
    """The whole cluster as one router sees it; `ready` when every pool has a replica."""

    version: str
    ready: bool
    pools: tuple[PoolStatus, ...]
