"""The cluster spec: which modules exist, in which pools, and which models they make.

The YAML file is `docs/spec.md`'s subject; `heliostat.specfile.load_spec` reads it. Everything here is
frozen: a running cluster's spec changes by loading another one.
"""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, Strict, model_validator

from heliostat.wire import Role

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
Transport = Literal["shm", "nixl", "nccl"]


class _Frozen(BaseModel):
    # Strict: `gpus: yes` and `gpus: "2"` are findings, not 1 and 2.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Family(_Frozen):
    """What all modules have in common, so that they can exchange KV caches."""

    base: str = Field(description="The checkpoint whose geometry and tokenizer every module must share.")
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_model_len: int = Field(default=4096, ge=2, description="Prompt plus output, in tokens.")
    block_size: int | None = Field(
        default=None, gt=0, description="Tokens per KV block; null: vLLM's default."
    )


class Connector(_Frozen):
    """Any other KV connector of vLLM, as it is; exact sharing is then the operator's affair."""

    name: str = Field(description="vLLM's `kv_connector`, for example NixlConnector or LMCacheConnectorV1.")
    module_path: str | None = Field(default=None, description="vLLM's `kv_connector_module_path`.")
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="vLLM's `kv_connector_extra_config`."
    )
    prefill_params: dict[str, JsonValue] = Field(
        default={"do_remote_decode": True, "do_remote_prefill": False},
        description="`kv_transfer_params` of every prefill; what it answers goes to the decode.",
    )


class Transfer(_Frozen):
    """How KV travels from a prefill replica to a decode replica."""

    transport: Transport = "shm"
    lease_s: float = Field(default=30.0, gt=0, description="How long KV that nobody fetched is kept.")
    memory_gib: float = Field(
        default=1.0, gt=0, description="Memory in which one prefill replica keeps saved KV, in GiB."
    )
    directory: str = Field(
        default="/dev/shm/heliostat", description="Where `shm` keeps KV, and every transport its sockets."
    )
    connector: Connector | None = Field(
        default=None, description="Another connector of vLLM instead of a transport."
    )
    decode_choice: Literal["late", "early"] = Field(
        default="late",
        description="When the decode replica is chosen: after the prefill, or when its last chunk begins.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Where prefill replicas offer KV over `nixl` and `nccl`; `node`: their node's address.",
    )


class Replicas(_Frozen):
    """How many replicas a pool has; a plain number N means {min: N, max: N}."""

    min: int = Field(default=1, ge=0)
    max: int = Field(default=1, ge=1)

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


class SimTiming(_Frozen):
    """What a `sim` engine takes for its work; the defaults cost nothing.

    One decode step takes `step_ms + per_request_ms * b + per_kilotoken_ms * c / 1000` for b requests
    with c tokens of context in all. With `gpu` or `calibration` these figures are not read: times and KV
    space are those that the simulator reckons with (docs/simulator.md).
    """

    gpu: str | None = Field(default=None, description="As this GPU would: h100, h200, a100, b200.")
    calibration: str | None = Field(
        default=None, description="As in this file of `heliostat calibrate`; absolute where engines run."
    )
    speed: float = Field(default=1.0, gt=0, description="10: everything takes a tenth of its time.")

    prefill_tokens_per_s: float = Field(default=0.0, ge=0, description="0: prompts take no time.")
    step_ms: float = Field(default=0.0, ge=0)
    per_request_ms: float = Field(default=0.0, ge=0)
    per_kilotoken_ms: float = Field(default=0.0, ge=0)
    handoff_gib_per_s: float = Field(default=0.0, ge=0, description="0: handoffs take no time.")
    kv_tokens: int = Field(default=1_000_000, gt=0, description="Tokens of KV that one replica holds.")


class Lora(_Frozen):
    """Room for adapters in one replica."""

    rank: int | None = Field(
        default=None, ge=1, description="The largest that fits; null: that of the listed adapters, else 16."
    )
    slots: int = Field(default=8, ge=1, description="Different adapters in one batch (vLLM's max_loras).")
    kept: int = Field(
        default=256, ge=1, description="Adapters kept in memory; the longest unused is loaded again."
    )


class Autoscale(_Frozen):
    """How a pool with `replicas: {min, max}` grows and shrinks (docs/autoscaling.md)."""

    up_delay_s: float = Field(
        default=5.0, ge=0, description="Replicas are added once they have been needed for so long."
    )
    down_delay_s: float = Field(
        default=300.0, ge=0, description="And taken away once fewer would have been enough for so long."
    )
    start_s: float = Field(
        default=60.0, ge=0, description="What a replica takes to start; waiting work is not done sooner."
    )
    idle_s: float = Field(
        default=300.0, gt=0, description="With `min: 0`: a pool that nobody calls for so long goes to 0."
    )
    cold_start_s: float = Field(
        default=120.0, gt=0, description="A request waits so long for the first replica of a pool at 0."
    )


class Pool(_Frozen):
    """A pool: replicas that host the same module, or the same base plus adapters, in one role."""

    weights: str = Field(description="A directory (relative to the spec file), or a hub name `org/model`.")
    adapters: dict[Name, str] = Field(
        default_factory=dict, description="LoRA adapters of `weights`, by name: directories or hub names."
    )
    lora: Lora | None = Field(
        default=None, description="Room for adapters; null: the defaults where `adapters` are listed."
    )
    icarus: bool = Field(
        default=False,
        description="Decode: the base writes all KV, adapters only read it, so that all models share it.",
    )
    local_prefill_tokens: int = Field(
        default=256,
        ge=0,
        description="Decode with `icarus`: so many tokens beyond its cache a replica computes by itself.",
    )
    replicas: Replicas = Replicas()
    gpus: int = Field(default=1, ge=0, description="GPUs of one replica; above 1 is tensor parallelism.")
    cpus: float = Field(default=1.0, ge=0, description="CPU cores that Ray sets aside for one replica.")
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="Custom Ray resources of one replica, to place it: `{prefill_gpu: 1}`.",
    )
    kv_cache_gib: float | None = Field(
        default=None,
        gt=0,
        description="KV space of one replica, in GiB; None: vLLM's choice on a GPU, else 1.",
    )
    max_running: int = Field(default=256, ge=1, description="Requests that one replica computes at a time.")
    engine_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Handed to vLLM's AsyncEngineArgs as they are."
    )
    engine: Literal["vllm", "sim"] = Field(
        default="vllm", description="`sim` computes nothing: for tests of everything around the engine."
    )
    sim: SimTiming = SimTiming()
    policy: str | None = Field(
        default=None, description="How replicas are chosen (docs/router.md); null: the role's default."
    )
    ttft_ms: float | None = Field(
        default=None, gt=0, description="Prefill: the target for time to the first token; null: 2000."
    )
    tpot_ms: float | None = Field(
        default=None, gt=0, description="Decode: the target for time per output token."
    )
    autoscale: Autoscale = Field(
        default=Autoscale(), description="How the pool scales, where `replicas` has a `min` below its `max`."
    )
    drain_s: float = Field(
        default=600.0, ge=0, description="How long a replica that leaves may finish what it has."
    )
    surge_percent: int = Field(
        default=0, ge=0, le=100, description="Extra replicas while it is made anew; 0: an old one goes first."
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


class Limits(_Frozen):
    """What one model may take of the pools that it shares; null means no limit.

    Rates and concurrency hold for the whole cluster; each of R router replicas grants an Rth.
    """

    weight: float = Field(
        default=1.0, gt=0, description="Its share of a saturated pool, against the others'."
    )
    concurrency: int | None = Field(default=None, ge=1, description="Requests being served at a time.")
    requests_per_s: float | None = Field(default=None, gt=0)
    tokens_per_s: float | None = Field(default=None, gt=0, description="Prompt plus output tokens.")
    max_queued: int = Field(
        default=1000, ge=0, description="Requests that wait in one router replica; more get a 429."
    )
    queue_s: float = Field(default=30.0, gt=0, description="How long a request waits for a slot at most.")


class Model(_Frozen):
    """What a client names: a prefill module and a decode module, by the names of their pools and adapters."""

    prefill: Name
    decode: Name
    prefill_adapter: Name | None = Field(
        default=None, description="One of the prefill pool's adapters; null: its weights alone."
    )
    decode_adapter: Name | None = Field(
        default=None, description="One of the decode pool's adapters; null: its weights alone."
    )
    untrained_pair: bool = Field(
        default=False, description="Serve modules together that were not trained for each other."
    )
    limits: Limits = Limits()

    def pool(self, role: Role) -> str:
        """The pool of its module in that role."""
        return self.prefill if role is Role.PREFILL else self.decode

    def adapter(self, role: Role) -> str | None:
        """The adapter in that pool, if any."""
        return self.prefill_adapter if role is Role.PREFILL else self.decode_adapter


class Router(_Frozen):
    """The router replicas, and when they give up on a replica of a pool."""

    replicas: int = Field(default=1, ge=1)
    resources: dict[str, float] = Field(
        default_factory=dict, description="Custom Ray resources of one router replica, to place it."
    )
    prefix_blocks: int = Field(
        default=1_000_000, ge=0, description="Blocks that the prefix index of one router replica holds."
    )
    first_token_s: float = Field(default=60.0, gt=0, description="A leg without its first token is failed.")
    idle_s: float = Field(default=30.0, gt=0, description="A stream without a token for so long is failed.")
    model_changes: bool = Field(
        default=False, description="Whether `heliostat models add` and `remove` may change the models."
    )


class Traces(_Frozen):
    """OpenTelemetry spans of every request; what is left out, the standard OTEL_* variables say."""

    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="An OTLP/HTTP collector, like http://collector:4318; null: OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    sample_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The part of the requests that is traced; a client's traceparent decides for its own.",
    )
    engine: bool = Field(default=False, description="vLLM's own span of each leg, too.")


class Logs(_Frozen):
    """What router and replicas write into Serve's log files; never prompts or answers."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "text"
    requests: bool = Field(default=True, description="One line for every request that is over.")


class Observability(_Frozen):
    """What a running cluster says about itself, beside its metrics."""

    traces: Traces | None = Field(
        default=None, description="Spans; null: only where an OTEL_EXPORTER_OTLP_ENDPOINT is set."
    )
    logs: Logs = Logs()

    def of_pools(self) -> "Observability":
        """What replicas of pools need of it: which requests are traced and logged, routers decide."""
        traces = self.traces.model_copy(update={"sample_ratio": None}) if self.traces else None
        return Observability(traces=traces, logs=self.logs.model_copy(update={"requests": True}))


class PoolSpec(_Frozen):
    """What one pool's replicas are made from: that part of a spec, and no more.

    While it stays the same, a changed spec leaves the pool's replicas alone.
    """

    role: Annotated[Role, Strict(False)]  # a word where it comes from JSON
    name: Name
    family: Family
    transfer: Transfer
    pool: Pool
    observability: Observability = Observability()


class Spec(_Frozen):
    """A whole cluster."""

    family: Family
    transfer: Transfer = Transfer()
    router: Router = Router()
    max_gpus: int | None = Field(
        default=None,
        ge=0,
        description="GPUs up to which pools grow, all together; null: their `max` says it.",
    )
    observability: Observability = Observability()
    prefill: dict[Name, Pool] = Field(min_length=1)
    decode: dict[Name, Pool] = Field(min_length=1)
    models: dict[Name, Model] = Field(min_length=1)

    def pools(self) -> dict[tuple[Role, str], Pool]:
        """Every pool by role and name, prefill first, in the order of the file."""
        prefill = {(Role.PREFILL, name): pool for name, pool in self.prefill.items()}
        return prefill | {(Role.DECODE, name): pool for name, pool in self.decode.items()}

    def pool_spec(self, role: Role, name: str) -> PoolSpec:
        """The part that one pool's replicas are made from. Raises KeyError.

        What changes nothing in a replica is left at its default there. So are the adapters of a pool that
        says their rank: a replica loads them with the first request, so the list may change.
        """
        pool = self.pools()[role, name]
        listed = ("adapters",) if pool.lora and pool.lora.rank else ()
        return PoolSpec(
            role=role,
            name=name,
            family=self.family,
            transfer=self.transfer,
            pool=_without(pool, (*Pool.OUTSIDE_REPLICAS, *listed)),
            observability=self.observability.of_pools(),
        )

    def router_spec(self) -> "Spec":
        """The part that the routers are made from; what changes nothing in them is left at its default."""
        prefill = {name: _for_routers(pool) for name, pool in self.prefill.items()}
        decode = {name: _for_routers(pool) for name, pool in self.decode.items()}
        return self.model_copy(update={"prefill": prefill, "decode": decode})


def _for_routers(pool: Pool) -> Pool:
    """Of its size they know whether it may be 0, and how long a first replica then takes."""
    bare = _without(pool, Pool.model_fields.keys() - Pool.ROUTERS)
    if pool.replicas.min:
        return bare
    autoscale = Autoscale(cold_start_s=pool.autoscale.cold_start_s)
    return bare.model_copy(update={"replicas": Replicas(min=0), "autoscale": autoscale})


def _without(pool: Pool, keys: Iterable[str]) -> Pool:
    """The pool with these keys at their defaults."""
    fields = Pool.model_fields
    return pool.model_copy(update={key: fields[key].get_default(call_default_factory=True) for key in keys})
