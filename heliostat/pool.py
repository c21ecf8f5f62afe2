"""A pool of the spec: its module, its engine, how many replicas it has, and what decides that."""

from typing import ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from heliostat.section import Name, Section


class Replicas(Section):
    """How many replicas a pool has; a plain number N means {min: N, max: N}."""

    min: int = Field(
        default=1,
        ge=0,
        description="The fewest replicas; with 0 the pool goes to 0 when nobody calls it.",
    )
    max: int = Field(
        default=1,
        ge=1,
        description="The most replicas; not below `min`. Above it, the pool scales (docs/autoscaling.md).",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"min": value, "max": value}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "Replicas":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is larger than max {self.max}; raise max or lower min")
        return self


class SimTiming(Section):
    """What a `sim` engine takes for its work; the defaults cost nothing.

    One decode step takes `step_ms + per_request_ms * b + per_kilotoken_ms * c / 1000` for b requests
    with c tokens of context in all. With `gpu` or `calibration` these figures are not read: times and KV
    space are those that the simulator reckons with (docs/simulator.md).
    """

    gpu: str | None = Field(
        default=None,
        description="As this GPU would, by its datasheet and the family's geometry: `h100`, `h200`, `a100` "
        "or `b200`.",
    )
    calibration: str | None = Field(
        default=None,
        description="As measured in this file of `heliostat calibrate`; relative to the spec file, and at "
        "the same place on every host of a replica.",
    )
    speed: float = Field(default=1.0, gt=0, description="10: everything takes a tenth of its time.")

    prefill_tokens_per_s: float = Field(
        default=0.0,
        ge=0,
        description="Prompt tokens that a prefill computes per second; 0: prompts take no time.",
    )
    step_ms: float = Field(default=0.0, ge=0, description="A decode step, whatever is in it.")
    per_request_ms: float = Field(default=0.0, ge=0, description="Added for each request of the step.")
    per_kilotoken_ms: float = Field(
        default=0.0, ge=0, description="Added for each thousand tokens of context of the step."
    )
    handoff_gib_per_s: float = Field(
        default=0.0, ge=0, description="How fast KV moves; 0: handoffs take no time."
    )
    kv_tokens: int = Field(default=1_000_000, gt=0, description="Tokens of KV that one replica holds.")


class Lora(Section):
    """Room for adapters in one replica."""

    rank: int | None = Field(
        default=None,
        ge=1,
        description="The largest rank that fits; null: that of the listed adapters, 16 without any. A number "
        "lets the list change without new replicas (docs/operations.md).",
    )
    slots: int = Field(default=8, ge=1, description="Different adapters in one batch (vLLM's `max_loras`).")
    kept: int = Field(
        default=256,
        ge=1,
        description="Adapters kept in a replica's memory; the longest unused is loaded again when it is "
        "asked for.",
    )


class Autoscale(Section):
    """How a pool with `replicas: {min, max}` grows and shrinks (docs/autoscaling.md)."""

    up_delay_s: float = Field(
        default=5.0, ge=0, description="Replicas are added once they have been needed for so long."
    )
    down_delay_s: float = Field(
        default=300.0, ge=0, description="And taken away once fewer would have been enough for so long."
    )
    start_s: float = Field(
        default=60.0,
        ge=0,
        description="What a replica takes to start; work that waits is not planned to be done sooner.",
    )
    idle_s: float = Field(
        default=300.0, gt=0, description="With `min: 0`: a pool that nobody calls for so long goes to 0."
    )
    cold_start_s: float = Field(
        default=120.0,
        gt=0,
        description="A request waits so long for the first replica of a pool at 0, then it gets a 503 with "
        "`Retry-After`.",
    )


class Pool(Section):
    """A pool: replicas that host the same module, or the same base plus adapters, in one role."""

    weights: str = Field(description="A directory (relative to the spec file), or a hub name `org/model`.")
    adapters: dict[Name, str] = Field(
        default_factory=dict,
        description="LoRA adapters of `weights`, by name; each a directory or a hub name.",
    )
    lora: Lora | None = Field(
        default=None,
        description="Room for adapters; null: the defaults where `adapters` are listed, else none.",
    )
    icarus: bool = Field(
        default=False,
        description="Decode pools: the base writes all KV, adapters only read it, so that all models share "
        "it (docs/modules.md).",
    )
    local_prefill_tokens: int = Field(
        default=256,
        ge=0,
        description="Decode pools with `icarus`: so many tokens beyond its cache a replica computes by "
        "itself.",
    )
    replicas: Replicas = Field(default=Replicas(), description="A plain number is both bounds.")
    gpus: int = Field(default=1, ge=0, description="GPUs of one replica; above 1 is tensor parallelism.")
    cpus: float = Field(default=1.0, ge=0, description="CPU cores that Ray sets aside for one replica.")
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="Custom Ray resources of one replica, to place it: `{prefill_gpu: 1}` goes to nodes that "
        "have some.",
    )
    kv_cache_gib: float | None = Field(
        default=None,
        gt=0,
        description="KV space of one replica, in GiB; null: vLLM's choice on a GPU, 1 without.",
    )
    max_running: int = Field(default=256, ge=1, description="Requests that one replica computes at a time.")
    engine_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Handed to vLLM's `AsyncEngineArgs` as they are."
    )
    engine: Literal["vllm", "sim"] = Field(
        default="vllm",
        description="`sim` computes nothing and takes the time that `sim` says: for tests of everything "
        "around the engine.",
    )
    sim: SimTiming = Field(default=SimTiming(), description="The timing of a `sim` engine.")
    policy: str | None = Field(
        default=None,
        description="How replicas are chosen, by a name in docs/router.md; null: the role's default.",
    )
    ttft_ms: float | None = Field(
        default=None,
        gt=0,
        description="Prefill pools that scale: the target for TTFT, the time to the first token; null: 2000.",
    )
    tpot_ms: float | None = Field(
        default=None, gt=0, description="Decode pools: the target for TPOT, the time per output token."
    )
    autoscale: Autoscale = Field(
        default=Autoscale(),
        description="How the pool scales, where `min` is below `max` (docs/autoscaling.md).",
    )
    drain_s: float = Field(
        default=600.0,
        ge=0,
        description="How long a replica that leaves may finish what it has, in seconds; it gets nothing new.",
    )
    surge_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Extra replicas while a pool is made anew, in percent of its replicas; with 0 an old one "
        "leaves before a new one comes, which needs no spare GPU, and a pool of one replica then has none "
        "for a while (docs/operations.md).",
    )

    OUTSIDE_REPLICAS: ClassVar = (
        *("replicas", "policy", "ttft_ms", "tpot_ms", "autoscale", "drain_s"),
        "surge_percent",
    )
    """Keys that Serve and the routers go by; a replica does not know them."""

    ROUTERS: ClassVar = (
        *("weights", "adapters", "lora", "icarus", "local_prefill_tokens", "gpus", "policy", "ttft_ms"),
        "tpot_ms",
    )
    """Keys that the routers go by. Of the others they know only whether a pool may be at 0, and how long its
    first replica then takes."""

    @property
    def takes_adapters(self) -> bool:
        """Whether its replicas make room for adapters, listed or added later."""
        return bool(self.adapters) or self.lora is not None or self.icarus

    @property
    def scales(self) -> bool:
        """Whether its number of replicas may change."""
        return self.replicas.min < self.replicas.max
