"""A pool's settings as vLLM's engine arguments (vLLM 0.32)."""

from vllm.config import KVEventsConfig, KVTransferConfig
from vllm.engine.arg_utils import AsyncEngineArgs

from deployments.engine import EngineConfig
from deployments.icarus.registration import icarus_args
from deployments.kv_events import KvEventReader
from deployments.vllm_lora import lora_args
from heliostat.spec import Connector
from heliostat.wire import Role
from kvtransfer.connector import CONNECTOR_NAME, ONE_WRITER_CONFIG, OWNER_CONFIG, TRANSFER_CONFIG
from kvtransfer.contract import read_module

CPU_KV_CACHE_GIB = 1.0


def engine_args(config: EngineConfig, reader: KvEventReader | None = None) -> AsyncEngineArgs:
    """vLLM's arguments for a pool; what the spec passes through comes last, but for the rules of sharing.

    `reader` hears the engine's KV events, unless the spec sends them elsewhere.
    """
    kv_cache_gib = config.pool.kv_cache_gib
    if kv_cache_gib is None and config.pool.gpus == 0:
        # Left alone, every CPU engine would claim 92 % of the host's memory.
        kv_cache_gib = CPU_KV_CACHE_GIB
    settings: dict[str, object] = {
        "model": str(config.weights),
        "dtype": config.family.dtype,
        "max_model_len": config.family.max_model_len,
        "max_num_seqs": config.pool.max_running,
        "tensor_parallel_size": max(1, config.pool.gpus),
        "enforce_eager": config.pool.gpus == 0,
        **({"block_size": config.family.block_size} if config.family.block_size else {}),
        **({"kv_cache_memory_bytes": int(kv_cache_gib * 2**30)} if kv_cache_gib else {}),
        **({"kv_events_config": _kv_events_config(reader)} if reader else {}),
        **({"otlp_traces_endpoint": config.traces_url} if config.traces_url else {}),
        **lora_args(config.pool),
        **config.pool.engine_args,
        # Blocks of a prefill engine are keyed by who wrote them (its weights, or an adapter), so its prefix
        # cache is exact. A decode engine holds KV of several writers, and its own blocks must not reach a
        # next turn (rules 3 and 4); but for ICaRus, where the base writes everything (rule 8).
        "enable_prefix_caching": config.caches_prefixes,
        **(icarus_args(read_module(config.weights).contract.architecture) if config.pool.icarus else {}),
        "disable_log_stats": False,
        "kv_transfer_config": _kv_transfer_config(config),
    }
    return AsyncEngineArgs(**settings)


def _kv_events_config(reader: KvEventReader) -> KVEventsConfig:
    return KVEventsConfig(
        enable_kv_cache_events=True,
        publisher="zmq",
        endpoint=reader.endpoint,
        topic=reader.topic,
        # For replays, which nobody asks for: it would keep the tokens of so many steps.
        buffer_steps=0,
    )


def _kv_transfer_config(config: EngineConfig) -> KVTransferConfig:
    """Our connector, or the one that the spec hands through."""
    ours = Connector(
        name=CONNECTOR_NAME,
        module_path="kvtransfer.connector",
        config={
            TRANSFER_CONFIG: config.transfer.model_dump(mode="json", exclude={"connector"}),
            OWNER_CONFIG: config.owner,
            ONE_WRITER_CONFIG: config.pool.icarus,
        },
    )
    connector = config.transfer.connector or ours
    return KVTransferConfig(
        kv_connector=connector.name,
        kv_connector_module_path=connector.module_path,
        kv_role="kv_producer" if config.role is Role.PREFILL else "kv_consumer",
        # `recompute` would prefill with the decode module and say nothing (rule 5).
        kv_load_failure_policy="fail",
        kv_connector_extra_config=connector.config,
    )
