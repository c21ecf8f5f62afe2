"""The modules behind a spec's pools: read once, compared with the family and with their partners (rule 7)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from heliostat.errors import ContractError, HeliostatError
from heliostat.spec import Model, Spec
from heliostat.wire import PoolKey, Role, adapted_domain
from kvtransfer.adapter import AdapterModule, read_adapter
from kvtransfer.card import Method, ModuleCard, read_card
from kvtransfer.contract import Module, check_contract, kv_domain, read_module
from kvtransfer.fit import Side, adapter_misfit, module_misfit, pair_misfit

AdapterKey = tuple[Role, str, str]
"""Role, pool, adapter."""

_BASE = "family.base"
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where each pool's module comes from: a local checkpoint, or the hub under a name.

    `unreadable` gives the reason for each place in the spec whose checkpoint could not be read.
    """

    dtype: str
    weights: dict[PoolKey, str]
    base: Module | None
    local: dict[PoolKey, Module]
    cards: dict[PoolKey, ModuleCard]
    adapters: dict[AdapterKey, AdapterModule]
    unreadable: dict[str, str]

    def domain(self, key: PoolKey) -> str | None:
        """The domain of the KV that this pool's weights write, or would; None before the download."""
        module = self.local.get(key)
        return kv_domain(module, self.dtype) if module else None

    def identity(self, role: Role, model: Model) -> str:
        """Equal for two models exactly when they have the same module in that role."""
        key = role, model.pool(role)
        weights = self.domain(key) or f"hub:{self.weights[key]}"
        name = model.adapter(role)
        if name is None:
            return weights
        adapter = self.adapters.get((*key, name))
        return adapted_domain(weights, adapter.reference) if adapter else f"{weights}+hub:{name}"

    def is_quantized(self, key: PoolKey) -> bool:
        """Whether a pool's weights are in fewer bits, as far as one can see without a download."""
        card, module = self.cards.get(key), self.local.get(key)
        return bool((card and card.method is Method.QUANTIZED) or (module and module.quantization))

    def side(self, role: Role, model: Model) -> Side | None:
        """One side of a model; None while a part of it is still on the hub."""
        key, name = (role, model.pool(role)), model.adapter(role)
        module, adapter = self.local.get(key), self.adapters.get((*key, name)) if name else None
        if module is None or (name and adapter is None):
            return None
        place = f"{_place(key)} with {name}" if name else _place(key)
        return Side(place, module, self.cards.get(key), adapter)


def read_sources(spec: Spec) -> Sources:
    """Read every local checkpoint that the spec names; digests all weights, so seconds for large ones."""
    unreadable: dict[str, str] = {}

    def read(place: str, folder: str, reader: Callable[[Path], Read]) -> Read | None:
        if not Path(folder).is_absolute():
            return None
        try:
            return reader(Path(folder))
        except HeliostatError as error:
            unreadable[place] = str(error)
            return None

    pools = spec.pools()
    modules = {key: read(_place(key), pool.weights, read_module) for key, pool in pools.items()}
    cards = {key: read(_place(key), pools[key].weights, read_card) for key in modules if modules[key]}
    adapters = {
        (*key, name): read(f"{_place(key)}.adapters.{name}", folder, read_adapter)
        for key, pool in pools.items()
        for name, folder in pool.adapters.items()
    }
    return Sources(
        dtype=spec.family.dtype,
        weights={key: pool.weights for key, pool in pools.items()},
        base=read(_BASE, spec.family.base, read_module),
        local={key: module for key, module in modules.items() if module},
        cards={key: card for key, card in cards.items() if card},
        adapters={name: adapter for name, adapter in adapters.items() if adapter},
        unreadable=unreadable,
    )


def check_modules(spec: Spec, sources: Sources) -> tuple[str, ...]:
    """A finding for each module that cannot be read, misses the family, or does not fit its partner."""
    findings = [f"{place}: {reason}" for place, reason in sources.unreadable.items()]
    strangers = dict(_strangers(sources))
    findings += [f"{_place(key)}: {problem}" for key, problem in strangers.items()]
    findings += _check_pools(spec, sources)
    findings += _check_adapters(spec, sources, strangers)
    for name, model in spec.models.items():
        keys: tuple[PoolKey, PoolKey] = (Role.PREFILL, model.prefill), (Role.DECODE, model.decode)
        if not strangers.keys() & set(keys):  # else its pool is named above, and that is the one to mend
            findings += [f"models.{name}: {problem}" for problem in _check_pair(spec, sources, model)]
    return tuple(findings)


def _strangers(sources: Sources) -> Iterator[tuple[PoolKey, str]]:
    """Pools whose weights are not of the family."""
    if sources.base is None:
        return
    for key, module in sources.local.items():
        if difference := _difference(_BASE, sources.base, _place(key), module):
            yield key, f"{difference}; choose weights that are tuned from the base"
        elif problem := module_misfit(sources.cards.get(key), sources.base):
            yield key, problem


def _check_pools(spec: Spec, sources: Sources) -> Iterator[str]:
    for key, pool in spec.pools().items():
        if spec.family.dtype == "float32" and sources.is_quantized(key) and pool.engine == "vllm":
            yield f"{_place(key)}: kernels for few bits run in 16 bits; say `dtype: bfloat16` in family"
        if pool.icarus and key[0] is Role.PREFILL:
            yield f"{_place(key)}: `icarus` is for decode pools; its prefill pool is the base as it is"
        if pool.icarus and pool.gpus > 1:
            yield f"{_place(key)}: ICaRus runs on one GPU per replica; say `gpus: 1` and more replicas"
        if pool.engine == "vllm" and pool.gpus > 1 and not (pool.icarus or spec.transfer.connector):
            yield (
                f"{_place(key)}: `gpus: {pool.gpus}` splits KV over so many ranks, and a handoff takes it "
                "from one; say `gpus: 1` and more replicas, or name NixlConnector in `transfer.connector`"
            )
        if pool.engine == "vllm" and pool.takes_adapters and spec.transfer.connector is not None:
            yield f"{_place(key)}: adapters need a transport of ours; take `transfer.connector` out"


def _check_adapters(spec: Spec, sources: Sources, strangers: dict[PoolKey, str]) -> Iterator[str]:
    for (role, pool_name, name), adapter in sources.adapters.items():
        key, place = (role, pool_name), f"{role}.{pool_name}.adapters.{name}"
        pool, module = spec.pools()[key], sources.local.get(key)
        if pool.lora and pool.lora.rank and adapter.rank > pool.lora.rank:
            yield f"{place}: its rank is {adapter.rank}, lora.rank is {pool.lora.rank}; raise lora.rank"
        if not module or key in strangers:
            continue
        if problem := adapter_misfit(adapter, module, role, pool.icarus):
            yield f"{place}: {problem}"


def _check_pair(spec: Spec, sources: Sources, model: Model) -> Iterator[str]:
    writer, reader = (sources.side(role, model) for role in (Role.PREFILL, Role.DECODE))
    if writer is None or reader is None:
        return
    left, right = _place((Role.PREFILL, model.prefill)), _place((Role.DECODE, model.decode))
    if difference := _difference(left, writer.module, right, reader.module):
        yield f"{difference}; pair pools of one family"
    elif spec.decode[model.decode].icarus and (
        writer.adapter or writer.module.weights != reader.module.weights
    ):
        yield f"{writer.name} is not the base of {right}, which writes all KV; name a pool of those weights"
    elif not model.untrained_pair and (problem := pair_misfit(writer, reader)):
        yield f"{problem} (or say `untrained_pair: true`)"


def _place(key: PoolKey) -> str:
    role, name = key
    return f"{role}.{name}"


def _difference(left: str, left_module: Module, right: str, right_module: Module) -> str | None:
    try:
        check_contract(left, left_module.contract, right, right_module.contract)
    except ContractError as error:
        return str(error)
    return None
