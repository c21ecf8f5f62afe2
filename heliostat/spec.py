"""The cluster spec: which modules exist, in which pools, and which models they make.

The YAML file is `docs/spec.md`'s subject; `heliostat.specfile.load_spec` reads it. Everything here is
frozen: a running cluster's spec changes by loading another one.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, JsonValue, Strict

from heliostat.observability import Logs, Observability, Traces
from heliostat.pool import Autoscale, Lora, Pool, Replicas, SimTiming
from heliostat.role import PoolKey, Role
from heliostat.section import Name, Section

Transport = Literal["shm", "nixl", "nccl"]


class Family(Section):
    """What all modules have in common, so that they can exchange KV caches."""

    base: str = Field(
        description="The checkpoint whose geometry and tokenizer every module must share; written like "
        "`weights`.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="bfloat16", description="What the modules compute in; a part of the KV domain."
    )
    max_model_len: int = Field(default=4096, ge=2, description="Prompt plus output, in tokens.")
    block_size: int | None = Field(
        default=None, gt=0, description="Tokens per KV block; null: vLLM's default."
    )


class Connector(Section):
    """Any other KV connector of vLLM, as it is; exact sharing is then the operator's affair."""

    name: str = Field(description="vLLM's `kv_connector`, like `NixlConnector` or `LMCacheConnectorV1`.")
    module_path: str | None = Field(
        default=None,
        description="vLLM's `kv_connector_module_path`, for a connector that vLLM does not know by name.",
    )
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="vLLM's `kv_connector_extra_config`."
    )
    prefill_params: dict[str, JsonValue] = Field(
        default={"do_remote_decode": True, "do_remote_prefill": False},
        description="`kv_transfer_params` of every prefill; what the prefill answers goes to the decode.",
    )


class Transfer(Section):
    """How KV travels from a prefill replica to a decode replica."""

    transport: Transport = Field(
        default="shm",
        description="`shm` reaches one host; `nixl` and `nccl` also others (docs/kvtransfer.md).",
    )
    lease_s: float = Field(
        default=30.0, gt=0, description="How long KV that nobody fetched is kept, in seconds."
    )
    memory_gib: float = Field(
        default=1.0,
        gt=0,
        description="Memory in which one prefill replica keeps saved KV, in GiB; a prompt's KV must fit.",
    )
    directory: str = Field(
        default="/dev/shm/heliostat", description="Where `shm` keeps KV, and every transport its sockets."
    )
    connector: Connector | None = Field(
        default=None, description="Another KV connector of vLLM instead of a transport."
    )
    decode_choice: Literal["late", "early"] = Field(
        default="late",
        description="When the decode replica is chosen: after the prefill, or when its last chunk begins.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Where prefill replicas offer KV over `nixl` and `nccl`; `node`: their node's address.",
    )


class Limits(Section):
    """What one model may take of the pools that it shares; null means no limit.

    Rates and concurrency hold for the whole cluster; each of R router replicas grants an Rth.
    """

    weight: float = Field(
        default=1.0,
        gt=0,
        description="The model's share of a saturated decode pool, against the weights of the others that "
        "wait.",
    )
    concurrency: int | None = Field(
        default=None, ge=1, description="Requests being served at a time; more wait."
    )
    requests_per_s: float | None = Field(
        default=None,
        gt=0,
        description="Requests let in per second; a second's worth may come at once.",
    )
    tokens_per_s: float | None = Field(
        default=None,
        gt=0,
        description="Prompt plus output tokens per second; what a running request overdraws, the next ones "
        "wait for.",
    )
    max_queued: int = Field(
        default=1000,
        ge=0,
        description="Requests that wait for a slot in one router replica; more get a 429.",
    )
    queue_s: float = Field(
        default=30.0,
        gt=0,
        description="How long a request waits for a slot at most, in seconds; nobody is let in whose wait is "
        "expected to be longer.",
    )


class Model(Section):
    """What a client names: a prefill module and a decode module, by the names of their pools and adapters."""

    prefill: Name = Field(description="The pool that writes the prompt's KV.")
    decode: Name = Field(description="The pool that reads it and generates.")
    prefill_adapter: Name | None = Field(
        default=None, description="One of the prefill pool's adapters; null: its weights alone."
    )
    decode_adapter: Name | None = Field(
        default=None, description="One of the decode pool's adapters; null: its weights alone."
    )
    untrained_pair: bool = Field(
        default=False, description="Serve modules together that were not trained for each other."
    )
    limits: Limits = Field(default=Limits(), description="What the model may take of pools that it shares.")

    def pool(self, role: Role) -> str:
        """The pool of its module in that role."""
        return self.prefill if role is Role.PREFILL else self.decode

    def adapter(self, role: Role) -> str | None:
        """The adapter in that pool, if any."""
        return self.prefill_adapter if role is Role.PREFILL else self.decode_adapter


class Router(Section):
    """The router replicas, and when they give up on a replica of a pool."""

    replicas: int = Field(
        default=1,
        ge=1,
        description="Router replicas; their state is local, and each grants its part of every limit.",
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="Custom Ray resources of one router replica, to place it."
    )
    prefix_blocks: int = Field(
        default=1_000_000,
        ge=0,
        description="Blocks that the prefix index of one router replica holds; the least recently used "
        "leave.",
    )
    first_token_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds after which a leg without its first token has failed, and is tried elsewhere.",
    )
    idle_s: float = Field(
        default=30.0, gt=0, description="Seconds without a token after which a stream has failed."
    )
    model_changes: bool = Field(
        default=False,
        description="Whether `heliostat models add` and `remove` may change the models; whoever reaches the "
        "port may then, too.",
    )
    tool_parser: str = Field(
        default="json",
        min_length=1,
        description="How the models write tool calls: a tool parser of vLLM's, or `json`.",
    )


class PoolSpec(Section):
    """What one pool's replicas are made from: that part of a spec, and no more.

    While it stays the same, a changed spec leaves the pool's replicas alone.
    """

    role: Annotated[Role, Strict(False)]  # a word where it comes from JSON
    name: Name
    family: Family
    transfer: Transfer
    pool: Pool
    observability: Observability = Observability()


class Spec(Section):
    """A whole cluster."""

    family: Family = Field(description="What all modules have in common.")
    transfer: Transfer = Field(
        default=Transfer(), description="How KV travels from a prefill replica to a decode replica."
    )
    router: Router = Field(
        default=Router(), description="The router replicas, and when they give up on a replica of a pool."
    )
    max_gpus: int | None = Field(
        default=None,
        ge=0,
        description="GPUs up to which pools grow, all together; null: each pool's `max` alone says it.",
    )
    observability: Observability = Field(
        default=Observability(), description="What a running cluster says about itself, beside its metrics."
    )
    prefill: dict[Name, Pool] = Field(min_length=1, description="Prefill pools, by name.")
    decode: dict[Name, Pool] = Field(min_length=1, description="Decode pools, by name.")
    models: dict[Name, Model] = Field(min_length=1, description="Models, by the name that clients use.")

    def pools(self) -> dict[PoolKey, Pool]:
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


__all__ = [
    "Autoscale",
    "Connector",
    "Family",
    "Limits",
    "Logs",
    "Lora",
    "Model",
    "Name",
    "Observability",
    "Pool",
    "PoolSpec",
    "Replicas",
    "Router",
    "SimTiming",
    "Spec",
    "Traces",
    "Transfer",
    "Transport",
]
