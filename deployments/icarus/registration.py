"""What makes an engine an ICaRus engine: its models and its block keys, in each of its processes."""

import os

from heliostat.errors import HeliostatError

ICARUS = "HELIOSTAT_ICARUS"
"""Set to "1" by `deployments.environment` for replicas of an ICaRus pool, and for no others."""

ARCHITECTURES = {
    "LlamaForCausalLM": "IcarusLlamaForCausalLM",
    "Qwen2ForCausalLM": "IcarusQwen2ForCausalLM",
    "Qwen3ForCausalLM": "IcarusQwen3ForCausalLM",
}
"""The base's architecture, as its config names it, and the one that `hf_overrides` puts in its place."""


def register_icarus() -> None:
    """Called by the plugin in the replica, the engine core and the worker; does nothing in other engines.

    A plain multi-LoRA engine writes other KV for each adapter, and its block keys must say so. That is why
    the models and the keys come together or not at all.
    """
    if os.environ.get(ICARUS) != "1":
        return
    from vllm import ModelRegistry

    from deployments.icarus.block_keys import share_blocks

    for architecture in ARCHITECTURES.values():
        ModelRegistry.register_model(architecture, f"deployments.icarus.models:{architecture}")
    share_blocks()


def icarus_args(architecture: str) -> dict[str, object]:
    """vLLM's engine arguments of an ICaRus pool, beside those for LoRA, for a base of this architecture.

    Raises HeliostatError for an architecture that has no two streams here.
    """
    if architecture not in ARCHITECTURES:
        raise HeliostatError(
            f"icarus: the base is a {architecture}; two streams are written for {', '.join(ARCHITECTURES)}"
        )
    return {
        "hf_overrides": {"architectures": [ARCHITECTURES[architecture]]},
        "enforce_eager": True,
        "enable_prefix_caching": True,
        "kv_sharing_fast_prefill": True,
    }
