"""The cluster spec: which modules exist, in which pools, and which models they make.

The YAML file is `docs/spec.md`'s subject; `heliostat.specfile.load_spec` reads it. Everything here is
frozen: a running cluster's spec changes by loading another one.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

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


class Pool(_Frozen):
    """A pool: replicas that host the same module in one role."""

    weights: str = Field(description="A directory (relative to the spec file), or a hub name `org/model`.")
    replicas: Replicas = Replicas()
    gpus: int = Field(default=1, ge=0, description="GPUs of one replica; above 1 is tensor parallelism.")
    cpus: float = Field(default=1.0, ge=0, description="CPU cores that Ray sets aside for one replica.")
    kv_cache_gib: float | None = Field(
        default=None,
        gt=0,
        description="KV space of one replica, in GiB; None: vLLM's choice on a GPU, else 1.",
    )
    max_running: int = Field(default=256, ge=1, description="Requests that one replica computes at a time.")
    engine_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Handed to vLLM's AsyncEngineArgs as they are."
    )


class Model(_Frozen):
    """What a client names: a prefill module and a decode module, by the names of their pools."""

    prefill: Name
    decode: Name


class Spec(_Frozen):
    """A whole cluster."""

    family: Family
    transfer: Transfer = Transfer()
    prefill: dict[Name, Pool] = Field(min_length=1)
    decode: dict[Name, Pool] = Field(min_length=1)
    models: dict[Name, Model] = Field(min_length=1)

    def pools(self) -> dict[tuple[Role, str], Pool]:
        """Every pool by role and name, prefill first, in the order of the file."""
        prefill = {(Role.PREFILL, name): pool for name, pool in self.prefill.items()}
        return prefill | {(Role.DECODE, name): pool for name, pool in self.decode.items()}
