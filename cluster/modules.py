"""The modules behind a spec's pools: read once, compared with the family and with their partners (rule 7)."""

from dataclasses import dataclass
from pathlib import Path

from heliostat.errors import ContractError, HeliostatError
from heliostat.spec import Spec
from heliostat.wire import Role
from kvtransfer.contract import Module, check_contract, kv_domain, read_module

PoolKey = tuple[Role, str]
_BASE = "family.base"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where each pool's module comes from: a local checkpoint, or the hub under a name.

    `unreadable` gives the reason for each place in the spec whose checkpoint could not be read.
    """

    dtype: str
    weights: dict[PoolKey, str]
    base: Module | None
    local: dict[PoolKey, Module]
    unreadable: dict[str, str]

    def domain(self, key: PoolKey) -> str | None:
        """The domain of the KV that this pool's module writes, or would; None before the download."""
        module = self.local.get(key)
        return kv_domain(module, self.dtype) if module else None

    def identity(self, key: PoolKey) -> str:
        """Equal for two pools of one role exactly when they hold the same module."""
        return self.domain(key) or f"hub:{self.weights[key]}"


def read_sources(spec: Spec) -> Sources:
    """Read every local checkpoint that the spec names; digests all weights, so seconds for large ones."""
    unreadable: dict[str, str] = {}

    def read(place: str, weights: str) -> Module | None:
        if not Path(weights).is_absolute():
            return None
        try:
            return read_module(Path(weights))
        except HeliostatError as error:
            unreadable[place] = str(error)
            return None

    modules = {key: read(_place(key), pool.weights) for key, pool in spec.pools().items()}
    return Sources(
        dtype=spec.family.dtype,
        weights={key: pool.weights for key, pool in spec.pools().items()},
        base=read(_BASE, spec.family.base),
        local={key: module for key, module in modules.items() if module},
        unreadable=unreadable,
    )


def check_modules(spec: Spec, sources: Sources) -> tuple[str, ...]:
    """A finding for each checkpoint that cannot be read, misses the family, or does not fit its partner."""
    findings = [f"{place}: {reason}" for place, reason in sources.unreadable.items()]
    strangers = set()
    if sources.base:
        for key, module in sources.local.items():
            if difference := _difference(_BASE, sources.base, _place(key), module):
                findings.append(f"{_place(key)}: {difference}; choose weights that are tuned from the base")
                strangers.add(key)
    for name, model in spec.models.items():
        keys: tuple[PoolKey, PoolKey] = (Role.PREFILL, model.prefill), (Role.DECODE, model.decode)
        if strangers.intersection(keys):
            continue  # its pool is named above, and that is the one to mend
        left, right = (sources.local.get(key) for key in keys)
        if left and right and (difference := _difference(_place(keys[0]), left, _place(keys[1]), right)):
            findings.append(f"models.{name}: {difference}; pair pools of one family")
    return tuple(findings)


def _place(key: PoolKey) -> str:
    role, name = key
    return f"{role}.{name}"


def _difference(left: str, left_module: Module, right: str, right_module: Module) -> str | None:
    try:
        check_contract(left, left_module.contract, right, right_module.contract)
    except ContractError as error:
        return str(error)
    return None
