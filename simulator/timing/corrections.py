"""How far real kernels stay behind the datasheet: the only numbers of a roofline that are not looked up."""

from pydantic import BaseModel, ConfigDict, Field


class Corrections(BaseModel):
    """Multiplies and adds to what the datasheets give. The defaults are for GPUs that nobody has measured.

    Efficiencies are fractions of the datasheet's rate; `simulator.timing.correct` fits the ones that steps
    depend on. One above 1 means that what was measured is not the GPU or geometry that was named.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    step_overhead_ms: float = Field(
        default=0.3,
        ge=0,
        description="Per step, whatever is in it: scheduling, launching a CUDA graph, gaps. An assumption.",
    )
    per_request_ms: float = Field(
        default=0.005,
        ge=0,
        description="Per decoding request and step: block table, sampling, detokenising. An assumption.",
    )
    memory_efficiency: float = Field(
        default=0.8,
        gt=0,
        description="Of the memory bandwidth, reading weights and KV. An assumption; copies reach about 0.9.",
    )
    compute_efficiency: float = Field(
        default=0.6,
        gt=0,
        description="Of the dense tensor-core rate, in the large matrix products of a prefill, on a GPU "
        "at its power limit. An assumption.",
    )
    attention_efficiency: float = Field(
        default=0.5,
        gt=0,
        description="Of the dense tensor-core rate, in attention. Between FlashAttention-2's 0.35 and "
        "FlashAttention-3's 0.75 on an H100 (arXiv 2407.08608, abstract).",
    )
    all_reduce_efficiency: float = Field(
        default=0.8, gt=0, description="Of NVLink's one-directional rate, for large messages. An assumption."
    )
    all_reduce_ms: float = Field(
        default=0.01, ge=0, description="Latency of one all-reduce of a small message. An assumption."
    )
    handoff_efficiency: float = Field(
        default=0.8, gt=0, description="Of the link's rate, moving KV blocks. An assumption."
    )
    handoff_latency_ms: float = Field(
        default=1.0,
        ge=0,
        description="Per handoff: the message that asks, registering, the notice of arrival. An assumption.",
    )
