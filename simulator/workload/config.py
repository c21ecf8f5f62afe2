"""What a workload file or the flags of `heliostat simulate` may say. `kind: poisson` alone is enough.

A key that the kind does not read is an error, not a wish that nobody hears.
"""

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulator.workload.agents import SHAPES, Shape
from simulator.workload.lengths import Lengths, LogNormal
from simulator.workload.popularity import Assign

Kind = Literal["poisson", "uniform", "gamma", "bursts", "ramp", "agents", "mooncake", "azure"]

_ALL = {"kind", "duration_s", "assign", "zipf"}
_REQUESTS = {"rate_per_s", "prompt", "output", "system_tokens", "system_per_model", "block_tokens"}
_SHAPE = {"turns", "agents_per_turn", "initial_tokens", "common_tokens", "new_tokens", "output_tokens"}
_TRACE = {"trace", "speed", "start_s", "max_model_len", "too_long"}

_READS: dict[Kind, set[str]] = {
    "poisson": _REQUESTS,
    "uniform": _REQUESTS,
    "gamma": _REQUESTS | {"cv"},
    "bursts": _REQUESTS | {"burst_factor", "burst_s", "period_s"},
    "ramp": _REQUESTS | {"to_rate_per_s"},
    "agents": _SHAPE | {"shape", "rate_per_s", "pause_s", "block_tokens"},
    "mooncake": _TRACE | {"common_blocks", "group_blocks"},
    "azure": _TRACE | {"block_tokens"},
}


class WorkloadConfig(BaseModel):
    """One workload; `kind` says which of the other keys are read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    kind: Kind
    duration_s: float | None = Field(
        default=None,
        gt=0,
        description="None: 600 s; a trace to its end. Of a trace, in the trace's own time.",
    )
    assign: Assign | None = Field(
        default=None, description="How requests get their models; None: `zipf`, and `turns` for agents."
    )
    zipf: float = Field(default=1.0, ge=0, le=10, description="Exponent of the popularity; 0 is even.")

    rate_per_s: float = Field(
        default=4.0, gt=0, description="Requests (agents: sessions) per second; bursts: outside the bursts."
    )
    cv: float = Field(default=2.0, gt=0, le=20, description="Gamma: deviation of the gaps over their mean.")
    burst_factor: float = Field(default=5.0, gt=0, description="The rate in a burst, over `rate_per_s`.")
    burst_s: float = Field(default=10.0, gt=0)
    period_s: float = Field(default=60.0, gt=0, description="From burst to burst.")
    to_rate_per_s: float = Field(default=16.0, gt=0, description="Ramp: the rate at the end.")

    prompt: Lengths = LogNormal(mean=1024, cap=8192)
    output: Lengths = LogNormal(mean=256, cap=1024)
    system_tokens: int = Field(default=0, ge=0, description="Of a system prompt, in front of every prompt.")
    system_per_model: bool = Field(default=False, description="Each model has a system prompt of its own.")
    block_tokens: int = Field(default=16, ge=1, description="Tokens of one block that prompts can share.")

    shape: Literal["react", "reflexion", "icarus-react", "icarus-reflexion"] = "react"
    turns: int | None = Field(default=None, ge=1, description="This and the next five: None: the shape's.")
    agents_per_turn: int | None = Field(default=None, ge=1)
    initial_tokens: int | None = Field(default=None, ge=1)
    common_tokens: int | None = Field(default=None, ge=0)
    new_tokens: int | None = Field(default=None, ge=0)
    output_tokens: int | None = Field(default=None, ge=1)
    pause_s: float = Field(default=0.0, ge=0, description="Between two calls of a session.")

    trace: str | None = Field(default=None, description="The trace's file.")
    speed: float = Field(default=1.0, gt=0, description="2 replays the trace in half its time.")
    start_s: float = Field(default=0.0, ge=0, description="Where in the trace it begins.")
    max_model_len: int | None = Field(default=None, ge=2, description="Prompt plus answer, in tokens.")
    too_long: Literal["skip", "cut"] = Field(default="skip", description="What becomes of longer requests.")
    common_blocks: int = Field(default=1, ge=0, description="Mooncake: blocks of the system prompt.")
    group_blocks: int = Field(default=1, ge=1, description="Mooncake: blocks that make a prefix group.")

    @model_validator(mode="after")
    def _consistent(self) -> "WorkloadConfig":
        unread = sorted(self.model_fields_set - _ALL - _READS[self.kind])
        if unread:
            raise ValueError(f"kind {self.kind} does not read {', '.join(unread)}; leave it out")
        if "zipf" in self.model_fields_set and self.assignment == "turns":
            raise ValueError("models assigned by turns have no zipf; leave it out, or set assign to zipf")
        if self.kind in ("mooncake", "azure") and not self.trace:
            raise ValueError(f"kind {self.kind} needs a file; name it in trace")
        if self.burst_s >= self.period_s:
            raise ValueError(
                f"burst_s {self.burst_s:g} is not below period_s {self.period_s:g}; raise period_s"
            )
        self.agent_shape()
        return self

    @property
    def assignment(self) -> Assign:
        """`assign`, or the kind's default."""
        return self.assign or ("turns" if self.kind == "agents" else "zipf")

    def agent_shape(self) -> Shape:
        """The named shape with what is set beside it. Raises ValueError if that does not fit together."""
        given = {key: value for key in _SHAPE if isinstance(value := getattr(self, key), int)}
        return replace(SHAPES[self.shape], **given)
