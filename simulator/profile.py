"""What a replica of each pool is, from the spec and the hardware that it is planned for."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from heliostat.spec import Family, Pool
from heliostat.wire import PoolKey, Role
from simulator.engine.profile import Profile
from simulator.timing import (
    H100,
    KNOWN,
    Adapters,
    Calibration,
    Corrections,
    Geometry,
    Gpu,
    LinearTiming,
    Roofline,
    Timing,
    correct,
    geometry_of,
    gpu_named,
    kv_bits,
    kv_capacity_tokens,
    load_calibration,
    weight_bits,
)
from simulator.timing.capacity import GIB
from simulator.topology import Arrangement

BATCHED_TOKENS = 8192
"""vLLM's default `max_num_batched_tokens` for an API server on a GPU of 70 GiB or more (EngineArgs, 0.32)."""

ADAPTER_RANK = 16
"""Of LoRA modules whose rank no spec says: peft's usual choice between 8 and 64."""

CPU_KV_GIB = 1.0
"""`Pool.kv_cache_gib` where it is null and there is no GPU."""

Link = Literal["nvlink", "nic"]


@dataclass(frozen=True)
class Hardware:
    """What the pools run on.

    A `calibration` of a known GPU corrects the roofline of `gpu`; one of anything else replaces it, and then
    holds for the module that was measured. Pools with `engine: sim` take the times that their own
    spec says, unless `plan_sim` asks to plan them as real ones.
    """

    gpu: Gpu = H100
    link: Link = "nic"
    corrections: Corrections = field(default_factory=Corrections)
    calibration: Calibration | None = None
    plan_sim: bool = False


class ReplicaTiming(NamedTuple):
    """One replica of a pool: its times, its KV space and what a token of KV weighs."""

    timing: Timing
    kv_tokens: int
    kv_bytes_per_token: int


def profiles_of(
    arrangement: Arrangement, hardware: Hardware, directory: Path, block_tokens: int
) -> dict[PoolKey, Profile]:
    """A profile for each pool that has replicas. Raises HeliostatError where a geometry is not known."""
    return {
        key: _profile(arrangement, key, pool, hardware, directory, block_tokens)
        for key, pool in arrangement.pools().items()
    }


def _profile(
    arrangement: Arrangement, key: PoolKey, pool: Pool, hardware: Hardware, directory: Path, block_tokens: int
) -> Profile:
    role, name = key
    # Decode replicas keep no prompts unless one writer made all KV (rules 4 and 8).
    keeps = role is Role.PREFILL or arrangement.writes_all(key) or arrangement.colocated
    batched = pool.engine_args.get("max_num_batched_tokens")
    replica = replica_timing(
        pool,
        arrangement.spec.family,
        hardware,
        directory,
        bits=arrangement.weight_bits.get(name) if role is Role.DECODE else None,
        rows_per_request=2 if arrangement.writes_all(key) else 1,
        adapters=_adapters(arrangement, key),
    )
    return Profile(
        timing=replica.timing,
        kv_tokens=replica.kv_tokens,
        kv_bytes_per_token=replica.kv_bytes_per_token,
        max_running=pool.max_running,
        max_batched_tokens=batched if isinstance(batched, int) else BATCHED_TOKENS,
        block_tokens=block_tokens,
        keeps_prefixes=keeps,
    )


def replica_timing(
    pool: Pool,
    family: Family,
    hardware: Hardware,
    directory: Path,
    *,
    bits: int | None = None,
    rows_per_request: int = 1,
    adapters: Adapters | None = None,
) -> ReplicaTiming:
    """What a pool's own spec says of its `sim` engine, else what the hardware gives.

    `directory` is where relative paths begin; `bits` replaces the weights' own. Raises HeliostatError where
    a geometry, a GPU or a calibration file is not known.
    """
    if pool.engine == "sim" and not hardware.plan_sim:
        sim = pool.sim
        if sim.gpu is None and sim.calibration is None:
            bytes_per_token = int(KNOWN["Qwen/Qwen3-8B"].kv_bytes_per_token())
            return ReplicaTiming(LinearTiming(sim), sim.kv_tokens, bytes_per_token)
        hardware = Hardware(
            gpu=gpu_named(sim.gpu) if sim.gpu else hardware.gpu,
            calibration=load_calibration(directory / sim.calibration) if sim.calibration else None,
        )
    geometry = geometry_of(family.base, directory)
    bits = bits or weight_bits(pool.weights, directory, pool.engine_args, family.dtype)
    cache_bits = kv_bits(pool.engine_args, family.dtype)
    bytes_per_token = int(geometry.kv_bytes_per_token(cache_bits))
    gpus = max(pool.gpus, 1)
    roofline = Roofline(
        hardware.gpu,
        geometry,
        gpus=gpus,
        weight_bits=bits,
        kv_bits=cache_bits,
        corrections=hardware.corrections,
        rows_per_request=rows_per_request,
        adapters=adapters,
        link_gb_per_s=hardware.gpu.nvlink_gb_per_s * gpus if hardware.link == "nvlink" else None,
    )
    timing = _calibrated(roofline, hardware.calibration) if hardware.calibration else roofline
    return ReplicaTiming(timing, _kv_tokens(pool, hardware, geometry, bits, cache_bits), bytes_per_token)


def _calibrated(roofline: Roofline, calibration: Calibration) -> Timing:
    setup = calibration.setup
    if setup.gpu is None:
        return calibration.timing
    measured = Roofline(
        gpu_named(setup.gpu),
        setup.geometry,
        gpus=setup.gpus,
        weight_bits=setup.weight_bits,
        kv_bits=setup.kv_bits,
        corrections=roofline.corrections,
    )
    return replace(roofline, corrections=correct(calibration.samples, measured))


def _kv_tokens(pool: Pool, hardware: Hardware, geometry: Geometry, bits: int, cache_bits: int) -> int:
    if pool.engine == "sim" and "kv_tokens" in pool.sim.model_fields_set:
        return pool.sim.kv_tokens
    on_cpu = hardware.calibration is not None and hardware.calibration.setup.gpu is None
    if (gib := pool.kv_cache_gib or (CPU_KV_GIB if on_cpu else None)) is not None:
        return int(gib * GIB / geometry.kv_bytes_per_token(cache_bits))
    return kv_capacity_tokens(hardware.gpu, geometry, max(pool.gpus, 1), bits, kv_bits=cache_bits)


def _adapters(arrangement: Arrangement, key: PoolKey) -> Adapters | None:
    """Prefill modules that are adapters, decode modules that are (ICaRus), or both in one engine."""
    number = arrangement.num_adapters(key)
    if not number:
        return None
    lora = arrangement.pools()[key].lora
    rank = (lora.rank if lora else None) or ADAPTER_RANK
    return Adapters(rank, min(number, lora.slots) if lora else number)
