"""Which engine settings the two streams cannot keep exact; an engine with one of them does not start."""

from typing import TYPE_CHECKING

from heliostat.errors import HeliostatError

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def refuse(config: "VllmConfig") -> None:
    """Raise HeliostatError for the first setting that would give wrong tokens or no speed."""
    for wrong, finding in _findings(config):
        if wrong:
            raise HeliostatError(f"icarus: {finding}")


def _findings(config: "VllmConfig") -> tuple[tuple[bool, str], ...]:
    parallel, cache = config.parallel_config, config.cache_config
    return (
        (
            parallel.tensor_parallel_size > 1,
            f"tensor_parallel_size is {parallel.tensor_parallel_size}, but adapters are added after a "
            "layer's reduction, which is right on one device only; give each replica one device",
        ),
        (
            parallel.pipeline_parallel_size > 1,
            f"pipeline_parallel_size is {parallel.pipeline_parallel_size}, but the two streams' rows do not "
            "cross stages; set it to 1",
        ),
        (
            not config.model_config.enforce_eager,
            "the model runs eagerly only: the number of adapted rows differs from step to step; "
            "set enforce_eager to true",
        ),
        (
            config.speculative_config is not None,
            "speculative decoding is not covered; remove speculative_config",
        ),
        (
            not cache.kv_sharing_fast_prefill,
            "kv_sharing_fast_prefill is off, and prompts would pay for both streams; set it to true",
        ),
    )
