"""What is decided about, what is known of it, and what comes of it: plain values."""

from dataclasses import dataclass, field
from enum import StrEnum

from heliostat.wire import PoolKey, Role, StepTime

UNKNOWN = StepTime()


@dataclass(frozen=True, slots=True)
class ScaledPool:
    """What the spec says of a pool. A pool that does not scale has `least == most`, and is looked at all the
    same: what it cannot take, the others need not bring.

    `target_ms` is TTFT for a prefill pool and TPOT for a decode pool; None: only KV and slots count.
    `leads_to`: the decode pools that its models name, for a prefill pool.
    """

    role: Role
    name: str
    least: int
    most: int
    gpus: int
    target_ms: float | None
    up_delay_s: float
    down_delay_s: float
    idle_s: float
    start_s: float
    leads_to: frozenset[str] = frozenset()

    @property
    def key(self) -> PoolKey:
        """Role and name."""
        return self.role, self.name

    @property
    def scales(self) -> bool:
        """Whether its size may change."""
        return self.least < self.most


@dataclass(frozen=True, slots=True)
class Served:
    """What a pool has done so far, over all its replicas, also those that are gone.

    For a prefill pool: its prompts, all their tokens, those that it `computed` because they were not
    cached, and the sum of the squares of what it computed of each prompt. For a decode pool only `requests`,
    those that are over.
    """

    requests: float = 0.0
    prompt_tokens: float = 0.0
    computed: float = 0.0
    squares: float = 0.0

    def with_prompt(self, prompt_tokens: int, cached_tokens: int) -> "Served":
        """One more prompt."""
        computed = prompt_tokens - cached_tokens
        return self + Served(1, prompt_tokens, computed, computed * computed)

    def __add__(self, other: "Served") -> "Served":
        return Served(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.computed + other.computed,
            self.squares + other.squares,
        )

    def __sub__(self, other: "Served") -> "Served":
        return Served(
            self.requests - other.requests,
            self.prompt_tokens - other.prompt_tokens,
            self.computed - other.computed,
            self.squares - other.squares,
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """A pool now. Sums over its replicas, but for `max_running`, `kv_tokens`, `rate` and `step`, which are
    those of one; 0 where nobody knows.

    `size` counts the replicas that were asked for, `serving` those that are there. `queued_tokens` are
    prompt tokens to be computed, `rate` is how many of them a replica computes per second. `outside` counts
    requests that wait in routers, for a slot of their decode pool or for the first replica of a pool
    that has none; `outside_tokens` are their prompts', cached or not. `let_in` counts those that got
    a slot of a decode pool since its start.
    """

    size: int
    serving: int
    running: float = 0.0
    waiting: float = 0.0
    outside: float = 0.0
    outside_tokens: float = 0.0
    let_in: float = 0.0
    served: Served = Served()
    queued_tokens: float = 0.0
    rate: float = 0.0
    context_tokens: float = 0.0
    kv_used_tokens: float = 0.0
    kv_tokens: float = 0.0
    max_running: float = 0.0
    step: StepTime = UNKNOWN


class Kind(StrEnum):
    """What a size was wanted for."""

    ENOUGH = "enough"
    TTFT = "ttft"
    TPOT = "tpot"
    KV = "kv"
    SLOTS = "slots"
    LESS_LOAD = "less_load"
    CALLED = "called"
    IDLE = "idle"
    BOUNDS = "bounds"
    DECODE_FULL = "decode_full"
    GPUS = "gpus"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The size that a pool ought to have, and why."""

    replicas: int
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Need:
    """Replicas that a pool's load takes: `low` to hold the target, `high` to hold it with headroom."""

    low: int
    high: int
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What was needed at a moment."""

    at_s: float
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A pool at an earlier moment."""

    at_s: float
    reading: Reading


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What is remembered of a pool from one decision to the next.

    `since_s`: since when every moment has a wish. `rate` and `step` are the last that were known, because
    replicas withhold old ones. `called_s`: when somebody last wanted something of it.
    """

    since_s: float
    called_s: float
    wishes: tuple[Wish, ...] = ()
    seen: tuple[Seen, ...] = ()
    rate: float = 0.0
    step: StepTime = UNKNOWN


@dataclass(frozen=True, slots=True)
class Memory:
    """The whole state of the decision; begins empty."""

    pools: dict[PoolKey, PoolMemory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision over all pools."""

    wanted: dict[PoolKey, Wanted]
    memory: Memory
