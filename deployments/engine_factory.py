"""From a pool of a spec to its engine: what a replica runs, and whoever measures engines without replicas."""

import os
import uuid

from deployments.engine import Engine, EngineConfig, KvListener
from deployments.reach import reachable_host
from deployments.weights import local_weights
from heliostat.spec import PoolSpec
from kvtransfer.contract import check_contract, kv_domain, read_module
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
        traces_url=traces_url(traces, os.environ) if traces and traces.engine else "",
    )


def create_engine(config: EngineConfig, on_kv: KvListener | None = None) -> Engine:
    """Imported here, because whoever only builds the application must not wait for vLLM's import."""
    if config.pool.engine == "sim":
        from deployments.sim_engine import SimEngine

        return SimEngine(config, on_kv=on_kv)
    from deployments.vllm_engine import VllmEngine

    return VllmEngine(config, on_kv)
