"""From a pool of a spec to its engine: what a replica runs, and whoever measures engines without replicas."""

import uuid

from deployments.engine import Engine, EngineConfig, KvListener
from deployments.reach import reachable_host
from deployments.weights import local_weights
from heliostat.spec import Spec
from heliostat.wire import Role
from kvtransfer.contract import check_contract, kv_domain, read_module


def engine_config(spec: Spec, role: Role, name: str, replica: str) -> EngineConfig:
    """Resolve the pool's weights and check them against the family (rule 7). Raises HeliostatError."""
    pool = spec.pools()[role, name]
    module = read_module(local_weights(pool.weights))
    base = read_module(local_weights(spec.family.base))
    check_contract("the family base", base.contract, f"{role}.{name}", module.contract)
    return EngineConfig(
        role=role,
        name=name,
        pool=pool,
        family=spec.family,
        transfer=spec.transfer.model_copy(update={"host": reachable_host(spec.transfer)}),
        weights=module.path,
        domain=kv_domain(module, spec.family.dtype),
        replica=replica,
        owner=uuid.uuid4().hex,
    )


def create_engine(config: EngineConfig, on_kv: KvListener | None = None) -> Engine:
    """Imported here, because whoever only builds the application must not wait for vLLM's import."""
    if config.pool.engine == "sim":
        from deployments.sim_engine import SimEngine

        return SimEngine(config, on_kv=on_kv)
    from deployments.vllm_engine import VllmEngine

    return VllmEngine(config, on_kv)
