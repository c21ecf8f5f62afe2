"""Other ways to serve a spec's models with the same replicas: what a comparison compares.

Every topology is a spec again, so the same admission, routes and pools run on it; what a spec file cannot say
(adapters in one pool, engines without disaggregation) stands beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from heliostat.errors import HeliostatError
from heliostat.spec import Model, Pool, Replicas, Spec
from heliostat.wire import PoolKey, Role

SHARED = "shared"
"""The name of a pool that serves all models."""


@dataclass(frozen=True)
class Arrangement:
    """One way to serve the models of a spec.

    `adapters`: models of a prefill pool differ by a LoRA adapter, and so do their KV domains. `one_writer`:
    decode modules are adapters over KV that the base writes (ICaRus), so replicas keep and share it.
    `colocated`: engines without disaggregation; the decode pools are the replicas, and the prefill pools
    of the same names are the very same ones. `weight_bits` of decode pools, where not the spec's own.
    """

    topology: str
    spec: Spec
    adapters: bool = False
    one_writer: bool = False
    colocated: bool = False
    weight_bits: Mapping[str, int] = field(default_factory=dict)

    def pools(self) -> dict[PoolKey, Pool]:
        """Those that have replicas of their own."""
        return {
            key: pool
            for key, pool in self.spec.pools().items()
            if not (self.colocated and key[0] is Role.PREFILL)
        }

    @property
    def gpus(self) -> int:
        """Of all replicas."""
        return sum(pool.replicas.max * max(pool.gpus, 1) for pool in self.pools().values())

    def domain(self, model: str) -> str:
        """Who writes the KV that the model's prompts become."""
        entry = self.spec.models[model]
        if self.topology == "spec":
            return f"{self.spec.prefill[entry.prefill].weights} {entry.prefill_adapter or ''}"
        return f"{entry.prefill} {model}" if self.adapters else entry.prefill

    def writes_all(self, key: PoolKey) -> bool:
        """Whether decode replicas of that pool write KV as the prefill module does, and keep it (rule 8)."""
        role, name = key
        icarus = self.topology == "spec" and role is Role.DECODE and self.spec.decode[name].icarus
        return icarus or (self.one_writer and role is Role.DECODE)

    def num_adapters(self, key: PoolKey) -> int:
        """Adapters of which a batch of that pool may hold some."""
        role, name = key
        if self.topology == "spec":
            users = [model for model in self.spec.models.values() if model.pool(role) == name]
            return len({adapter for model in users if (adapter := model.adapter(role))})
        adapted = self.one_writer if role is Role.DECODE else self.adapters
        return len(self.spec.models) if adapted or (self.colocated and self.adapters) else 0

    def scaled(self, replicas: Mapping[PoolKey, int]) -> "Arrangement":
        """With so many replicas in these pools."""
        changed: dict[Role, dict[str, Pool]] = {Role.PREFILL: {}, Role.DECODE: {}}
        for (role, name), pool in self.spec.pools().items():
            key = (Role.DECODE, name) if self.colocated else (role, name)
            number = replicas.get(key, pool.replicas.max)
            changed[role][name] = pool.model_copy(update={"replicas": Replicas(min=number, max=number)})
        spec = self.spec.model_copy(update={role.value: pools for role, pools in changed.items()})
        return replace(self, spec=spec)


def arrange(spec: Spec, topology: str) -> Arrangement:
    """The spec's models on as many replicas of each role, in another topology; "spec": as the file says.

    A topology that needs a pool per model splits a role's replicas evenly, the first models taking what is
    left over, and gives each pool one replica at least, which may be more than the spec has.
    Raises HeliostatError for a topology that does not exist.
    """
    make = _TOPOLOGIES.get(topology)
    if make is None:
        raise HeliostatError(f"there is no topology {topology!r}; there are: {', '.join(TOPOLOGIES)}")
    return make(spec)


def _as_it_is(spec: Spec) -> Arrangement:
    return Arrangement("spec", spec)


def _dedicated(spec: Spec) -> Arrangement:
    return Arrangement(
        "dedicated", _with(spec, _per_model(spec, Role.PREFILL), _per_model(spec, Role.DECODE))
    )


def _sun(spec: Spec) -> Arrangement:
    return Arrangement("sun", _with(spec, _per_model(spec, Role.PREFILL), _one(spec, Role.DECODE)))


def _qsun(spec: Spec) -> Arrangement:
    return replace(_sun(spec), topology="qsun", weight_bits={SHARED: 4})


def _sun_lora(spec: Spec) -> Arrangement:
    return Arrangement(
        "sun-lora", _with(spec, _one(spec, Role.PREFILL), _one(spec, Role.DECODE)), adapters=True
    )


def _prefillshare(spec: Spec) -> Arrangement:
    return Arrangement("prefillshare", _with(spec, _one(spec, Role.PREFILL), _per_model(spec, Role.DECODE)))


def _icarus(spec: Spec) -> Arrangement:
    return Arrangement(
        "icarus", _with(spec, _one(spec, Role.PREFILL), _one(spec, Role.DECODE)), one_writer=True
    )


def _colocated(spec: Spec) -> Arrangement:
    """Multi-LoRA engines without disaggregation: one pool for all models, a KV domain for each."""
    number = _total(spec, Role.PREFILL) + _total(spec, Role.DECODE)
    pools = {SHARED: _sized(next(iter(spec.decode.values())), number)}
    return Arrangement("colocated", _with(spec, pools, pools), adapters=True, colocated=True)


def _colocated_icarus(spec: Spec) -> Arrangement:
    """The same engines, with ICaRus adapters: one KV domain for all models."""
    return replace(_colocated(spec), topology="colocated-icarus", adapters=False, one_writer=True)


_TOPOLOGIES: dict[str, Callable[[Spec], Arrangement]] = {
    "spec": _as_it_is,
    "dedicated": _dedicated,
    "sun": _sun,
    "qsun": _qsun,
    "sun-lora": _sun_lora,
    "prefillshare": _prefillshare,
    "icarus": _icarus,
    "colocated": _colocated,
    "colocated-icarus": _colocated_icarus,
}

TOPOLOGIES = tuple(_TOPOLOGIES)
"""The names that `arrange` knows."""


def _pools(spec: Spec, role: Role) -> dict[str, Pool]:
    return spec.prefill if role is Role.PREFILL else spec.decode


def _total(spec: Spec, role: Role) -> int:
    return sum(pool.replicas.max for pool in _pools(spec, role).values())


def _sized(pool: Pool, replicas: int) -> Pool:
    return pool.model_copy(update={"replicas": Replicas(min=replicas, max=replicas)})


def _one(spec: Spec, role: Role) -> dict[str, Pool]:
    """One pool for all models, like the first of the spec."""
    return {SHARED: _sized(next(iter(_pools(spec, role).values())), _total(spec, role))}


def _per_model(spec: Spec, role: Role) -> dict[str, Pool]:
    """A pool for each model, like the one that it has."""
    pools, number = _pools(spec, role), len(spec.models)
    share, rest = divmod(_total(spec, role), number)
    made = {}
    for place, (model, entry) in enumerate(spec.models.items()):
        pool = pools[entry.prefill if role is Role.PREFILL else entry.decode]
        made[model] = _sized(pool, max(1, share + (place < rest)))
    return made


def _with(spec: Spec, prefill: dict[str, Pool], decode: dict[str, Pool]) -> Spec:
    """The spec with these pools; models take the pool of their own name, or the shared one."""

    def pool_of(pools: dict[str, Pool], model: str) -> str:
        return model if model in pools else SHARED

    models = {
        name: Model(prefill=pool_of(prefill, name), decode=pool_of(decode, name), limits=model.limits)
        for name, model in spec.models.items()
    }
    return spec.model_copy(update={"prefill": prefill, "decode": decode, "models": models})
