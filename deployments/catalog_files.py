"""A model's modules on disk: where its adapters are, and whether they fit the pools that it names.

Everything here reads files, and may download from the hub: it blocks. On the event loop, call it in a thread.
"""

import os
import re

from deployments.weights import local_weights
from heliostat.errors import HeliostatError, InvalidRequestError
from heliostat.findings import did_you_mean, show
from heliostat.spec import Model, Pool, Spec
from heliostat.wire import Role
from kvtransfer.adapter import AdapterModule, read_adapter
from kvtransfer.card import read_card
from kvtransfer.contract import Module, read_module
from kvtransfer.fit import Side, adapter_misfit, pair_misfit
from router.catalog import ServedAdapter, ServedModel
from router.frontend.models import NewModel

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def spec_models(spec: Spec) -> dict[str, ServedModel]:
    """The spec's models with their adapters, each read once. Raises HeliostatError: what cannot be read."""
    read: dict[str, AdapterModule] = {}

    def found(model: Model, role: Role) -> ServedAdapter | None:
        name = model.adapter(role)
        if name is None:
            return None
        pool = model.pool(role)
        weights = spec.pools()[role, pool].adapters[name]
        if weights not in read:
            try:
                read[weights] = read_adapter(local_weights(weights))
            except HeliostatError as error:
                raise HeliostatError(f"{role}.{pool}.adapters.{name}: {error}") from error
        return ServedAdapter(name, read[weights].reference)

    return {
        name: ServedModel(model, found(model, Role.PREFILL), found(model, Role.DECODE))
        for name, model in spec.models.items()
    }


class ModuleFiles:
    """Finds and checks what a new model is made of; the pools' own weights are read once."""

    def __init__(self, spec: Spec) -> None:
        self._pools = spec.pools()
        self._modules: dict[str, Module] = {}

    def find(self, new: NewModel) -> ServedModel:
        """The model with its adapters. Raises InvalidRequestError: what is wrong, and what to do."""
        writer, reader = self._side(new, Role.PREFILL), self._side(new, Role.DECODE)
        self._check_writer(new, writer, reader)
        if not new.untrained_pair and (problem := pair_misfit(writer, reader)):
            raise InvalidRequestError(
                f"{problem}; to serve this pair all the same, say `untrained_pair: true`"
            )
        return ServedModel(
            Model(
                prefill=new.prefill,
                decode=new.decode,
                prefill_adapter=self._listed(Role.PREFILL, new.prefill, new.prefill_adapter),
                decode_adapter=self._listed(Role.DECODE, new.decode, new.decode_adapter),
                untrained_pair=new.untrained_pair,
                limits=new.limits,
            ),
            _served(new.prefill_adapter, writer),
            _served(new.decode_adapter, reader),
        )

    def _side(self, new: NewModel, role: Role) -> Side:
        name, source = _pool_name(new, role), _adapter_source(new, role)
        pool = self._pool(role, name)
        if source is not None and not pool.takes_adapters:
            raise InvalidRequestError(
                f"`{role}_adapter`: the pool {role}.{name} makes no room for adapters; "
                "say `lora: {}` in its section of the spec and serve it again, or name another pool"
            )
        module = self._module(pool)
        label = f"{role}.{name}" + (f" with {source}" if source is not None else "")
        adapter = self._adapter(role, name, source, module) if source is not None else None
        return Side(label, module, read_card(module.path), adapter)

    def _pool(self, role: Role, name: str) -> Pool:
        if (role, name) not in self._pools:
            pools = [pool for kind, pool in self._pools if kind is role]
            hint = did_you_mean(name, pools, f"{role} pools")
            raise InvalidRequestError(f"`{role}`: no {role} pool {show(name)}; {hint}")
        return self._pools[role, name]

    def _module(self, pool: Pool) -> Module:
        if pool.weights not in self._modules:
            self._modules[pool.weights] = read_module(local_weights(pool.weights))
        return self._modules[pool.weights]

    def _adapter(self, role: Role, pool_name: str, source: str, base: Module) -> AdapterModule:
        pool = self._pools[role, pool_name]
        weights = pool.adapters.get(source, source)
        if not os.path.isabs(weights) and not _HUB_NAME.fullmatch(weights):
            hint = did_you_mean(source, pool.adapters, f"adapters of {role}.{pool_name}")
            raise InvalidRequestError(
                f"`{role}_adapter`: {show(source)} is no adapter of the pool, no absolute directory "
                f"and no hub name `org/adapter`; {hint}"
            )
        try:
            if os.path.isabs(weights) and not os.path.isdir(weights):
                raise HeliostatError(
                    f"{weights}: no such directory on the router's host; the routers and all replicas of "
                    f"{role}.{pool_name} need it at that path"
                )
            adapter = read_adapter(local_weights(weights))
        except HeliostatError as error:
            raise InvalidRequestError(f"`{role}_adapter`: {error}") from error
        if problem := adapter_misfit(adapter, base, role, pool.icarus):
            raise InvalidRequestError(f"`{role}_adapter`: {source}: {problem} (pool {role}.{pool_name})")
        return adapter

    def _check_writer(self, new: NewModel, writer: Side, reader: Side) -> None:
        """In an ICaRus pool the base writes all KV, that of the prompt, too (rule 8)."""
        if not self._pools[Role.DECODE, new.decode].icarus:
            return
        if writer.adapter is not None:
            raise InvalidRequestError(
                f"`prefill_adapter`: in the ICaRus pool decode.{new.decode} the base writes all KV; "
                "leave the prefill adapter out"
            )
        if writer.module.weights != reader.module.weights:
            raise InvalidRequestError(
                f"`prefill`: the pool prefill.{new.prefill} holds other weights than the ICaRus pool "
                f"decode.{new.decode}, whose base writes all KV; name a prefill pool with the same weights"
            )

    def _listed(self, role: Role, pool: str, source: str | None) -> str | None:
        return source if source in self._pools[role, pool].adapters else None


def _served(source: str | None, side: Side) -> ServedAdapter | None:
    return ServedAdapter(source, side.adapter.reference) if source is not None and side.adapter else None


def _pool_name(new: NewModel, role: Role) -> str:
    return new.prefill if role is Role.PREFILL else new.decode


def _adapter_source(new: NewModel, role: Role) -> str | None:
    return new.prefill_adapter if role is Role.PREFILL else new.decode_adapter
