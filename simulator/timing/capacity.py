"""How many tokens of KV fit beside the weights, the way vLLM reckons it."""

from heliostat.errors import HeliostatError
from simulator.timing.geometry import Geometry
from simulator.timing.hardware import Gpu
from simulator.timing.roofline import kv_share

GIB = 2**30


def kv_capacity_tokens(
    gpu: Gpu,
    geometry: Geometry,
    gpus: int = 1,
    weight_bits: int = 16,
    memory_share: float = 0.9,
    reserve_gib: float = 2.0,
    kv_bits: int = 16,
) -> int:
    """Tokens of KV that one replica of so many GPUs holds.

    `memory_share` is vLLM's `gpu_memory_utilization`: weights, activations and KV together take no more of
    each GPU. `reserve_gib` per GPU is for activations, the CUDA context and captured graphs; vLLM measures
    it at the start, 2 GiB is an assumption. Raises HeliostatError if the weights leave no room.
    """
    usable_gib = gpu.memory_gib * memory_share
    weights_gib = geometry.weight_bytes(weight_bits) / gpus / GIB
    left_gib = usable_gib - reserve_gib - weights_gib
    tokens = int(left_gib * GIB / (geometry.kv_bytes_per_token(kv_bits) * kv_share(geometry, gpus)))
    if tokens < 1:
        raise HeliostatError(
            f"{weights_gib:.1f} GiB of {weight_bits} bit weights per GPU leave no room for KV on {gpus} x "
            f"{gpu.name}: {usable_gib:.1f} GiB are usable ({memory_share:.0%} of {gpu.memory_gib:g}), "
            f"{reserve_gib:g} GiB of them reserved; take more GPUs per replica or fewer bits per weight"
        )
    return tokens
