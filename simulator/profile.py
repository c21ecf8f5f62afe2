"""What a replica of each pool is, from the spec and the hardware that it is planned for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from heliostat.spec import Pool
from heliostat.wire import Role
from simulator.engine.engine import Profile
from simulator.timing.base import Timing
from simulator.timing.calibration import Calibrated, Calibration
from simulator.timing.capacity import GIB, kv_capacity_tokens
from simulator.timing.checkpoints import KNOWN, geometry_of, kv_bits, weight_bits
from simulator.timing.corrections import Corrections
from simulator.timing.hardware import H100, Gpu
from simulator.timing.linear import LinearTiming
from simulator.timing.roofline import Adapters, Roofline
from simulator.topology import Arrangement, PoolKey

BATCHED_TOKENS = 8192
"""vLLM's default `max_num_batched_tokens` for an API server on a GPU of 70 GiB or more (EngineArgs, 0.32)."""

ADAPTER_RANK = 16
"""Of LoRA modules whose rank no spec says: peft's usual choice between 8 and 64."""

Link = Literal["nvlink", "nic"]


@dataclass(frozen=True)
class Hardware:
    """What the pools run on. A `calibration` that was measured replaces the roofline of `gpu`, and the GPU's
    name is then of no matter but for its memory. Pools with `engine: sim` take the times of their own spec
    unless `plan_sim` says that they stand for real ones."""

    gpu: Gpu = H100
    link: Link = "nic"
    corrections: Corrections = field(default_factory=Corrections)
    calibration: Calibration | None = None
    plan_sim: bool = False


def profiles_of(
    arrangement: Arrangement, hardware: Hardware, directory: Path, block_tokens: int
) -> dict[PoolKey, Profile]:
    """A profile for each pool that has replicas. Raises HeliostatError where a geometry is not known."""
    return {
        key: _profile(arrangement, key, pool, hardware, directory, block_tokens)
        for key, pool in arrangement.pools().items()
    }


def _profile(
    arrangement: Arrangement,
    key: PoolKey,
    pool: Pool,
    hardware: Hardware,
    directory: Path,
    block_tokens: int,
) -> Profile:
    role, name = key
    family = arrangement.spec.family
    # Decode replicas keep no prompts unless one writer made all KV (rules 4 and 8).
    keeps = role is Role.PREFILL or arrangement.one_writer or arrangement.colocated
    batched = pool.engine_args.get("max_num_batched_tokens")
    max_batched = batched if isinstance(batched, int) else BATCHED_TOKENS
    if pool.engine == "sim" and not hardware.plan_sim:
        bytes_per_token = int(KNOWN["Qwen/Qwen3-8B"].kv_bytes_per_token())
        return Profile(
            LinearTiming(pool.sim), pool.sim.kv_tokens, bytes_per_token, pool.max_running, max_batched,
            block_tokens, keeps,
        )  # fmt: skip
    geometry = geometry_of(family.base, directory)
    bits = arrangement.weight_bits.get(name) if role is Role.DECODE else None
    bits = bits or weight_bits(pool.weights, directory, pool.engine_args, family.dtype)
    cache_bits = kv_bits(pool.engine_args, family.dtype)
    bytes_per_token = int(geometry.kv_bytes_per_token(cache_bits))
    gpus = max(pool.gpus, 1)
    if pool.kv_cache_gib is not None:
        capacity = int(pool.kv_cache_gib * GIB / bytes_per_token)
    else:
        capacity = kv_capacity_tokens(hardware.gpu, geometry, gpus, bits, kv_bits=cache_bits)
    timing: Timing
    if hardware.calibration is not None:
        timing = Calibrated(hardware.calibration)
    else:
        timing = Roofline(
            hardware.gpu,
            geometry,
            gpus=gpus,
            weight_bits=bits,
            kv_bits=cache_bits,
            corrections=hardware.corrections,
            rows_per_request=2 if arrangement.one_writer and role is Role.DECODE else 1,
            adapters=_adapters(arrangement, role),
            link_gb_per_s=hardware.gpu.nvlink_gb_per_s * gpus if hardware.link == "nvlink" else None,
        )
    return Profile(timing, capacity, bytes_per_token, pool.max_running, max_batched, block_tokens, keeps)


def _adapters(arrangement: Arrangement, role: Role) -> Adapters | None:
    """Prefill modules that are adapters, decode modules that are (ICaRus), or both in one engine."""
    adapted = arrangement.one_writer if role is Role.DECODE else arrangement.adapters
    if adapted or (arrangement.colocated and arrangement.adapters):
        return Adapters(ADAPTER_RANK, len(arrangement.spec.models))
    return None
