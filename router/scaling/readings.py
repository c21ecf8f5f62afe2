"""From the loads of a pool's replicas to its reading."""

from collections.abc import Sequence
from statistics import fmean, median

from heliostat.wire import Load, StepTime
from router.scaling.base import Reading, Served

NOTHING = Served()


def read_pool(
    size: int,
    loads: Sequence[Load],
    served: Served = NOTHING,
    outside: float = 0.0,
    outside_tokens: float = 0.0,
    let_in: float = 0.0,
) -> Reading:
    """What these replicas say together; `size` of them were asked for, the rest is starting."""
    rates = [load.prefill_tokens_per_s for load in loads if load.prefill_tokens_per_s]
    return Reading(
        size=size,
        serving=len(loads),
        running=sum(load.running for load in loads),
        waiting=sum(load.waiting for load in loads),
        outside=outside,
        outside_tokens=outside_tokens,
        let_in=let_in,
        served=served,
        queued_tokens=sum(load.queued_prompt_tokens for load in loads),
        rate=median(rates) if rates else 0.0,
        context_tokens=sum(load.context_tokens for load in loads),
        kv_used_tokens=sum(load.kv_use * load.kv_tokens for load in loads),
        kv_tokens=max((load.kv_tokens for load in loads), default=0),
        max_running=max((load.max_running for load in loads), default=0),
        step=_mean_step([load.step for load in loads]),
    )


def _mean_step(steps: Sequence[StepTime]) -> StepTime:
    """The mean of lines is a line. Those that know their slopes come before those that know a base only."""
    known = [step for step in steps if step.per_request_ms or step.per_token_ms]
    known = known or [step for step in steps if step.base_ms]
    if not known:
        return StepTime()
    return StepTime(
        fmean(step.base_ms for step in known),
        fmean(step.per_request_ms for step in known),
        fmean(step.per_token_ms for step in known),
    )
