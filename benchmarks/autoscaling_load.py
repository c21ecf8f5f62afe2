"""The workloads of the autoscaling benchmark: Mooncake's trace as it is, twice as fast, and in bursts."""

from dataclasses import replace
from pathlib import Path

from simulator.workload.mooncake import load_mooncake
from simulator.workload.replay import Replay, Selection

PERIOD_S = 300.0
BURST_S = 60.0
FACTOR = 3.0
"""In bursts, so many times the trace's rate arrive in the last `BURST_S` of every `PERIOD_S`, and less in
between, so that the mean is the trace's."""

MAX_MODEL_LEN = 131_072


def load(trace: Path, name: str, models: tuple[str, ...], duration_s: float | None) -> Replay:
    """`x1`, `x2`, … or `bursts`; `duration_s` in the trace's own time. Raises SpecError for a bad trace."""
    speed = 1.0 if name == "bursts" else float(name.removeprefix("x"))
    selection = Selection(speed=speed, duration_s=duration_s, max_model_len=MAX_MODEL_LEN)
    replay = load_mooncake(trace, models, selection)
    return in_bursts(replay) if name == "bursts" else replay


def in_bursts(replay: Replay) -> Replay:
    """The same requests in the same order; the clock of the trace runs fast in bursts, and slowly outside."""
    requests = tuple(replace(each, at_s=warped(each.at_s)) for each in replay.requests)
    description = f"{replay.source}, {FACTOR:g}x for {BURST_S:g} of every {PERIOD_S:g} s"
    return replace(replay, source=description, requests=requests, duration_s=warped(replay.duration_s))


def warped(at_s: float) -> float:
    """When the trace's moment `at_s` comes. A whole period takes as long as it did."""
    calm_s = PERIOD_S - BURST_S
    calm_rate = (PERIOD_S - FACTOR * BURST_S) / calm_s
    periods, within_s = divmod(at_s, PERIOD_S)
    calm_part_s = calm_s * calm_rate
    if within_s <= calm_part_s:
        return periods * PERIOD_S + within_s / calm_rate
    return periods * PERIOD_S + calm_s + (within_s - calm_part_s) / FACTOR
