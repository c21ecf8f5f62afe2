"""What became of a simulated cluster's requests and pools: the raw figures that `simulator.summary` reads."""

from dataclasses import dataclass, field

from heliostat.wire import Role


@dataclass(slots=True)
class Requests:
    """One entry per request and column, in the order in which they ended. Times are virtual seconds.

    A refused request (429) has `first_s` and `end_s` at the moment of the refusal and no output tokens.
    `cached_tokens` of `prompt_tokens` were not computed again. One that was still open when the run was cut
    off has its end there, and no output tokens.
    """

    model: list[int] = field(default_factory=list)
    """Index in `Outcome.models`."""
    session: list[int] = field(default_factory=list)
    """The number of its session."""
    arrived_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    cached_tokens: list[int] = field(default_factory=list)
    output_tokens: list[int] = field(default_factory=list)
    refused: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.model)


@dataclass(slots=True)
class PoolOutcome:
    """One pool. `busy_s` is the time that its replicas computed, summed over them; `replicas` the most that
    it had at a time. `replica_s` sums the time for which replicas were held, start and drain included, until
    the last arrival, `held_s` the same until the end of the run.

    The timeline has an entry per `Outcome.times_s`: requests computing, requests waiting (for a slot, for KV
    space or for their KV), the mean share of KV in use, and how unevenly requests are spread.
    """

    name: str
    role: Role
    replicas: int
    gpus_per_replica: int
    busy_s: float = 0.0
    steps: int = 0
    step_requests: int = 0
    """Decode rows of all steps: over `steps` it is the mean batch."""
    preemptions: int = 0
    replica_s: float = 0.0
    held_s: float = 0.0
    running: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    kv_use: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """Replicas asked for, those that start included."""
    spread: list[float] = field(default_factory=list)
    """Standard deviation over the replicas of their requests, computing or waiting."""


@dataclass(slots=True)
class Outcome:
    """One run of one topology under one workload. `elapsed_s` is virtual, `wall_s` what the run took here."""

    topology: str
    workload: str
    models: tuple[str, ...]
    seed: int
    duration_s: float
    """Until the last session began (`Workload.duration_s`)."""
    elapsed_s: float
    """Until the last request ended."""
    wall_s: float
    requests: Requests
    pools: dict[str, PoolOutcome]
    times_s: list[float]
    handoff_bytes: int = 0
    resized: int = 0
    """How often a pool got another size."""
    unfinished: int = 0
    """Sessions that were still open when the run was cut off (`simulator.run.DRAIN_SHARE`)."""

    @property
    def gpus(self) -> int:
        """Of all pools."""
        return sum(pool.replicas * pool.gpus_per_replica for pool in self.pools.values())

    @property
    def gpu_hours(self) -> float:
        """Of all pools, until the last arrival."""
        return sum(pool.replica_s * pool.gpus_per_replica for pool in self.pools.values()) / 3600
