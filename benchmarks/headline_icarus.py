"""ICaRus (arXiv 2603.13281): one GPU, one engine, N adapters, called round robin over one growing context.

The baseline is a multi-LoRA engine whose prefix cache knows the adapter, so each adapter computes the context
for itself. ICaRus writes all KV with the base: what one adapter has read or said, the next one finds. Its
price is a second row per decoded token, which shows where a batch is bound by arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks import headline_assumptions as assumed
from benchmarks.headline_runs import (
    Bench,
    Metrics,
    Ran,
    Run,
    cluster,
    execute,
    higher,
    lower,
    middle,
    names_of,
    ratio,
)
from heliostat.wire import Role
from simulator.profile import Hardware
from simulator.timing import H100, Gpu
from simulator.topology import SHARED
from simulator.workload.agents import ICARUS_REACT, Agents, Shape
from simulator.workload.arrivals import poisson
from simulator.workload.lengths import Fixed
from simulator.workload.requests import Independent

GOALS = {2: (1.4, 3.8), 4: (2.3, 5.1), 8: (3.8, 11.1)}
"""Throughput, and p95 at the rate at which the baseline's throughput is highest (section 4.3)."""


@dataclass(frozen=True)
class Engine:
    """One GPU with so many adapters."""

    adapters: int
    shape: Shape = ICARUS_REACT
    gpu: Gpu = assumed.ICARUS_GPU

    def run(self, topology: str, rate: float, sessions: int, seed: int) -> Run:
        """About so many sessions, at so many per second."""
        workload = Agents(names_of(self.adapters), rate, sessions / rate, self.shape)
        return self._run(topology, Hardware(gpu=self.gpu), workload, seed)

    def crowd(self, topology: str, duration_s: float, seed: int) -> Run:
        """Short prompts with nothing in common, as many as fill the batch."""
        rate = assumed.ICARUS_CROWD_PER_S
        workload = Independent(
            models=names_of(self.adapters),
            arrivals=partial(poisson, rate_per_s=rate),
            pattern=f"Poisson of {rate:g}/s",
            duration_s=duration_s,
            prompt=Fixed(tokens=assumed.ICARUS_SHORT_PROMPT),
            output=Fixed(tokens=assumed.ICARUS_LONG_ANSWER),
            zipf=0.0,
        )
        return self._run(topology, Hardware(gpu=self.gpu), workload, seed)

    def _run(self, topology: str, hardware: Hardware, workload: Agents | Independent, seed: int) -> Run:
        arrangement = cluster(assumed.LLAMA, topology, self.adapters, {(Role.DECODE, SHARED): 1})
        return Run(arrangement, workload, hardware, seed, assumed.SUN_SLO, 0.0)


SIDES = {"icarus": "colocated-icarus", "base": "colocated"}


def measure(bench: Bench) -> Metrics:
    """All N over all rates; other GPUs and lengths for N = 8; then a crowd with short contexts."""
    sessions = 12 if bench.quick else assumed.ICARUS_SESSIONS
    rates = (0.8,) if bench.quick else assumed.ICARUS_RATES
    engines = {f"n{n}": Engine(n) for n in ((8,) if bench.quick else assumed.ICARUS_ADAPTERS)}
    if not bench.quick:
        longest = Engine(8, assumed.longer(ICARUS_REACT))
        engines |= {"h100": replace(longest, shape=ICARUS_REACT, gpu=H100), "context_x2": longest}
    runs: dict[str, Callable[[int], Run]] = {}
    for side, topology in SIDES.items():
        for name, engine in engines.items():
            for rate in rates if name.startswith("n") else rates[-1:]:
                runs[f"{side} {name} {rate:g}"] = partial(engine.run, topology, rate, sessions)
        runs[f"{side} crowd"] = partial(Engine(8).crowd, topology, 5.0 if bench.quick else 40.0)
    ran = bench.over_seeds(execute, runs)
    metrics: Metrics = {}
    for name in engines:
        metrics |= _figures(ran, name, rates if name.startswith("n") else rates[-1:])
    for n in assumed.ICARUS_ADAPTERS:
        if f"n{n}" in engines:
            metrics |= _with_goals(metrics, n)
    one, other = ran["icarus crowd"], ran["base crowd"]
    metrics["icarus_crowd_throughput_gain"] = higher(ratio(_tokens(one), _tokens(other)), "x")
    metrics["icarus_crowd_tpot_p50"] = lower(middle(_tpot(one)), "ms", peer=middle(_tpot(other)))
    return metrics


def _figures(ran: dict[str, list[Ran]], name: str, rates: tuple[float, ...]) -> Metrics:
    metrics: Metrics = {}
    for rate in rates:
        one, other = ran[f"icarus {name} {rate:g}"], ran[f"base {name} {rate:g}"]
        key = f"icarus_{name}_{rate:g}"
        metrics[f"{key}_throughput"] = higher(middle(_tokens(one)), "tok/s", peer=middle(_tokens(other)))
        metrics[f"{key}_session_p95"] = lower(middle(_p95(one)), "s", peer=middle(_p95(other)))
        metrics[f"{key}_tpot_p50"] = lower(middle(_tpot(one)), "ms", peer=middle(_tpot(other)))
    base = {rate: middle(_tokens(ran[f"base {name} {rate:g}"])) for rate in rates}
    mine = {rate: middle(_tokens(ran[f"icarus {name} {rate:g}"])) for rate in rates}
    peak = max(base, key=lambda rate: base[rate])
    metrics[f"icarus_{name}_throughput_gain"] = higher(max(mine[rate] / base[rate] for rate in rates), "x")
    gains = {
        rate: ratio(_p95(ran[f"base {name} {rate:g}"]), _p95(ran[f"icarus {name} {rate:g}"]))
        for rate in rates
    }
    metrics[f"icarus_{name}_base_peak_at"] = higher(peak, "sessions/s")
    metrics[f"icarus_{name}_p95_gain_at_base_peak"] = higher(gains[peak], "x")
    metrics[f"icarus_{name}_p95_gain_up_to"] = higher(max(gains.values()), "x")
    return metrics


def _with_goals(metrics: Metrics, n: int) -> Metrics:
    keys = f"icarus_n{n}_throughput_gain", f"icarus_n{n}_p95_gain_at_base_peak"
    pairs = zip(keys, GOALS[n], strict=True)
    return {key: metrics[key].model_copy(update={"goal": goal}) for key, goal in pairs}


def _tokens(ran: list[Ran]) -> list[float | None]:
    """All tokens over the time until the last answer, as 128 requests are measured."""
    return [each.makespan_tokens_per_s for each in ran]


def _p95(ran: list[Ran]) -> list[float | None]:
    p95s = [each.summary.session_ms.p95 for each in ran]
    return [None if p95 is None else p95 / 1000 for p95 in p95s]


def _tpot(ran: list[Ran]) -> list[float | None]:
    return [each.summary.tpot_ms.p50 for each in ran]
