"""What a spec amounts to before anything starts: pools, models, what they share and what that saves.

Reads the local checkpoints (configuration, tokenizer and a digest of the weights), nothing else. A module
on the hub is known by its name until it is downloaded: it is neither checked nor compared by content.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum

from cluster.modules import Sources, check_modules, read_sources
from heliostat.errors import SpecError
from heliostat.spec import Pool, Spec
from heliostat.wire import PoolKey, Role


class Sharing(StrEnum):
    """What a model shares with others; dedicated stands alone."""

    SUN = "SUN"
    QSUN = "QSUN"
    PREFILL_SHARE = "PrefillShare"
    ICARUS = "ICaRus"
    DEDICATED = "dedicated"


@dataclass(frozen=True, slots=True)
class Span:
    """A number at the smallest and at the largest size of the cluster."""

    min: int
    max: int

    def __add__(self, other: "Span") -> "Span":
        return Span(self.min + other.min, self.max + other.max)

    def __sub__(self, other: "Span") -> "Span":
        return Span(self.min - other.min, self.max - other.max)

    def __mul__(self, factor: int) -> "Span":
        return Span(self.min * factor, self.max * factor)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool. `domain` is None for decode pools, and for weights that are still on the hub."""

    role: Role
    name: str
    weights: str
    domain: str | None
    replicas: Span
    gpus: Span
    models: tuple[str, ...]
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model, the pools it runs on, and what it shares there."""

    name: str
    prefill: str
    decode: str
    shares: tuple[Sharing, ...]
    prefill_adapter: str | None = None
    decode_adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """The cluster's size, and that of the same models each on its own pair of pools of the same sizes."""

    replicas: Span
    gpus: Span
    dedicated_replicas: Span
    dedicated_gpus: Span
    replicas_saved: Span
    gpus_saved: Span


@dataclass(frozen=True, slots=True)
class Plan:
    """What would run, in the order of the spec."""

    pools: tuple[PoolPlan, ...]
    models: tuple[ModelPlan, ...]
    totals: Totals

    def to_json(self) -> str:
        """The fields above by their names, for scripts; the names and their order are stable."""
        return json.dumps(asdict(self), indent=2)


def make_plan(spec: Spec, file: str = "spec") -> Plan:
    """The plan of a loaded spec, whose local weights are absolute directories.

    Raises SpecError about `file` when modules cannot exchange KV caches, with every finding at once.
    """
    sources = read_sources(spec)
    if findings := check_modules(spec, sources):
        raise SpecError(file, findings)
    return Plan(
        pools=tuple(_pool(spec, key, pool, sources) for key, pool in spec.pools().items()),
        models=_models(spec, sources),
        totals=_totals(spec),
    )


def _pool(spec: Spec, key: PoolKey, pool: Pool, sources: Sources) -> PoolPlan:
    role, name = key
    users = (model for model, pair in spec.models.items() if pair.pool(role) == name)
    return PoolPlan(
        role=role,
        name=name,
        weights=pool.weights,
        domain=sources.domain(key) if role is Role.PREFILL else None,
        replicas=_replicas(pool),
        gpus=_gpus(pool),
        models=tuple(users),
        adapters=tuple(pool.adapters),
    )


def _models(spec: Spec, sources: Sources) -> tuple[ModelPlan, ...]:
    """Pairs are compared by what is in the pools, not by the names of the pools."""
    pairs = {
        name: (sources.identity(Role.PREFILL, model), sources.identity(Role.DECODE, model))
        for name, model in spec.models.items()
    }
    partners = set(pairs.values())
    writers = Counter(reader for _, reader in partners)
    readers = Counter(writer for writer, _ in partners)
    plans = []
    for name, (writer, reader) in pairs.items():
        model, shares = spec.models[name], []
        if spec.decode[model.decode].icarus:
            shares.append(Sharing.ICARUS)
        else:
            if writers[reader] > 1:
                quantized = sources.is_quantized((Role.DECODE, model.decode))
                shares.append(Sharing.QSUN if quantized else Sharing.SUN)
            if readers[writer] > 1:
                shares.append(Sharing.PREFILL_SHARE)
        plans.append(
            ModelPlan(
                name,
                model.prefill,
                model.decode,
                tuple(shares) or (Sharing.DEDICATED,),
                model.prefill_adapter,
                model.decode_adapter,
            )
        )
    return tuple(plans)


def _totals(spec: Spec) -> Totals:
    shared = list(spec.pools().values())
    dedicated = [
        pool
        for model in spec.models.values()
        for pool in (spec.prefill[model.prefill], spec.decode[model.decode])
    ]
    replicas, dedicated_replicas = (sum(map(_replicas, pools), Span(0, 0)) for pools in (shared, dedicated))
    gpus, dedicated_gpus = (sum(map(_gpus, pools), Span(0, 0)) for pools in (shared, dedicated))
    return Totals(
        replicas=replicas,
        gpus=gpus,
        dedicated_replicas=dedicated_replicas,
        dedicated_gpus=dedicated_gpus,
        replicas_saved=dedicated_replicas - replicas,
        gpus_saved=dedicated_gpus - gpus,
    )


def _replicas(pool: Pool) -> Span:
    return Span(pool.replicas.min, pool.replicas.max)


def _gpus(pool: Pool) -> Span:
    return _replicas(pool) * pool.gpus
