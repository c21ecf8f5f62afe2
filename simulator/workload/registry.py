"""From a workload's config to the workload: one line per kind."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import assert_never

from simulator.workload import arrivals
from simulator.workload.agents import Agents
from simulator.workload.arrivals import Arrivals
from simulator.workload.azure import load_azure
from simulator.workload.base import Workload
from simulator.workload.config import WorkloadConfig
from simulator.workload.mooncake import load_mooncake
from simulator.workload.replay import Selection
from simulator.workload.requests import Independent

DURATION_S = 600.0
"""Of a drawn workload that says nothing of it."""


def make_workload(config: WorkloadConfig, models: Sequence[str]) -> Workload:
    """The workload for these models, the most popular first. At least one.

    Raises SpecError with file and line if a trace cannot be used.
    """
    names = tuple(models)
    duration_s = config.duration_s or DURATION_S
    rate = config.rate_per_s
    match config.kind:
        case "poisson":
            pattern = f"Poisson of {rate:g}/s"
            return _independent(config, names, partial(arrivals.poisson, rate_per_s=rate), pattern)
        case "uniform":
            pattern = f"evenly {rate:g}/s"
            return _independent(config, names, partial(arrivals.uniform, rate_per_s=rate), pattern)
        case "gamma":
            pattern = f"gamma of {rate:g}/s with cv {config.cv:g}"
            arrive = partial(arrivals.gamma, rate_per_s=rate, cv=config.cv)
            return _independent(config, names, arrive, pattern)
        case "bursts":
            return _bursts(config, names)
        case "ramp":
            pattern = f"from {rate:g}/s to {config.to_rate_per_s:g}/s"
            arrive = partial(
                arrivals.ramp, from_rate_per_s=rate, to_rate_per_s=config.to_rate_per_s, ramp_s=duration_s
            )
            return _independent(config, names, arrive, pattern)
        case "agents":
            return Agents(
                models=names,
                rate_per_s=rate,
                duration_s=duration_s,
                shape=config.agent_shape(),
                assign=config.assignment,
                zipf=config.zipf,
                pause_s=config.pause_s,
                block_tokens=config.block_tokens,
            )
        case "mooncake":
            return load_mooncake(
                Path(config.trace or ""),
                names,
                _selection(config),
                config.assignment,
                config.zipf,
                config.common_blocks,
                config.group_blocks,
            )
        case "azure":
            return load_azure(
                Path(config.trace or ""),
                names,
                _selection(config),
                config.assignment,
                config.zipf,
                config.block_tokens,
            )
        case _:
            assert_never(config.kind)


def _bursts(config: WorkloadConfig, models: tuple[str, ...]) -> Workload:
    shape = (config.rate_per_s, config.burst_factor, config.burst_s, config.period_s)
    pattern = (
        f"bursts of {config.rate_per_s * config.burst_factor:g}/s for {config.burst_s:g} s in every "
        f"{config.period_s:g} s, {config.rate_per_s:g}/s between, {arrivals.bursts_rate_per_s(*shape):g}/s "
        "on average"
    )
    arrive = partial(
        arrivals.bursts,
        base_rate_per_s=config.rate_per_s,
        factor=config.burst_factor,
        burst_s=config.burst_s,
        period_s=config.period_s,
    )
    return _independent(config, models, arrive, pattern)


def _independent(config: WorkloadConfig, models: tuple[str, ...], arrive: Arrivals, pattern: str) -> Workload:
    return Independent(
        models=models,
        arrivals=arrive,
        pattern=pattern,
        duration_s=config.duration_s or DURATION_S,
        prompt=config.prompt,
        output=config.output,
        assign=config.assignment,
        zipf=config.zipf,
        system_tokens=config.system_tokens,
        system_per_model=config.system_per_model,
        block_tokens=config.block_tokens,
    )


def _selection(config: WorkloadConfig) -> Selection:
    return Selection(config.speed, config.start_s, config.duration_s, config.max_model_len, config.too_long)
