"""SUN (arXiv 2603.02599) and its baseline as clusters, and the largest load that one of them carries."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks import headline_assumptions as assumed
from benchmarks.headline_runs import (
    Bench,
    Ran,
    Run,
    cluster,
    execute,
    largest_rate,
    names_of,
    sized,
)
from heliostat.wire import Role
from simulator.profile import Hardware
from simulator.router import Options
from simulator.timing import Gpu
from simulator.topology import SHARED, Arrangement
from simulator.workload.arrivals import poisson
from simulator.workload.lengths import LogNormal
from simulator.workload.popularity import zipf_weights
from simulator.workload.requests import Independent

SEARCH_FROM = 40.0
"""Requests/s per decode GPU at which a search begins; it decides only how long the search takes."""

BLOCK_TOKENS = 512
"""Prompts share nothing here, so large blocks change no figure; they make runs shorter."""


@dataclass(frozen=True)
class Setting:
    """Models, how uneven they are, and what they run on. `context` multiplies the prompts."""

    models: int = 8
    zipf: float = 1.0
    base: str = assumed.QWEN
    gpu: Gpu = assumed.SUN_GPU
    context: int = 1
    policy: str = assumed.SUN_DECODE_POLICY

    @property
    def shares(self) -> dict[str, float]:
        names = names_of(self.models)
        return dict(zip(names, zipf_weights(self.models, self.zipf), strict=True))

    def run(self, arrangement: Arrangement, rate: float, duration_s: float, seed: int) -> Run:
        """Requests of this setting at so many per second, over the link between two nodes."""
        prompt, options = assumed.SUN_PROMPT, Options(policies={Role.DECODE: self.policy})
        workload = Independent(
            models=names_of(self.models),
            arrivals=partial(poisson, rate_per_s=rate),
            pattern=f"Poisson of {rate:g}/s",
            duration_s=duration_s,
            prompt=LogNormal(mean=prompt.mean * self.context, cap=prompt.cap * self.context),
            output=assumed.SUN_OUTPUT,
            zipf=self.zipf,
            block_tokens=BLOCK_TOKENS,
        )
        return Run(
            arrangement, workload, Hardware(gpu=self.gpu), seed, assumed.SUN_SLO, assumed.SUN_WARMUP, options
        )


@dataclass(frozen=True)
class Search:
    """For the largest rate of one arrangement on one seed."""

    setting: Setting
    arrangement: Arrangement
    guess: float
    seed: int
    duration_s: float = assumed.SUN_DURATION_S


def limit(search: Search) -> float:
    """Requests/s at which `ATTAINMENT` of the requests just keep the SLO."""

    def keeps(rate: float) -> bool:
        run = search.setting.run(search.arrangement, rate, search.duration_s, search.seed)
        return execute(run).summary.good_share >= assumed.ATTAINMENT

    return largest_rate(keeps, search.guess)


def dedicated(setting: Setting, prefill: int, decode: int = 1) -> Arrangement:
    """So many replicas of each role for each model."""
    replicas = sized(Role.PREFILL, dict.fromkeys(setting.shares, prefill))
    replicas |= sized(Role.DECODE, dict.fromkeys(setting.shares, decode))
    return cluster(setting.base, "dedicated", setting.models, replicas)


def sun(setting: Setting, prefill: int, decode: int, topology: str = "sun") -> Arrangement:
    """So many prefill replicas for each model, and so many decode replicas for all."""
    replicas = sized(Role.PREFILL, dict.fromkeys(setting.shares, prefill))
    return cluster(setting.base, topology, setting.models, replicas | {(Role.DECODE, SHARED): decode})


def dedicated_guess(setting: Setting, decode_gpus: int) -> float:
    """Where the most popular model fills its part of the decode GPUs."""
    return SEARCH_FROM * decode_gpus / setting.models / max(setting.shares.values()) / setting.context


def limits(bench: Bench, wanted: Mapping[str, tuple[Setting, Arrangement, float]]) -> dict[str, list[float]]:
    """Per name the limit on each seed; a `wanted` entry is setting, arrangement and where to begin."""
    duration_s = 8.0 if bench.quick else assumed.SUN_DURATION_S
    tasks = [
        Search(setting, arrangement, guess, seed, duration_s)
        for setting, arrangement, guess in wanted.values()
        for seed in bench.seeds
    ]
    found, number = bench.map(limit, tasks), len(bench.seeds)
    return {name: found[at * number : (at + 1) * number] for at, name in enumerate(wanted)}


def label(setting: Setting) -> str:
    return f"n{setting.models}_zipf{setting.zipf:g}"


def tpot_p50(ran: list[Ran]) -> list[float | None]:
    return [each.summary.tpot_ms.p50 for each in ran]


def tokens_per_s(ran: list[Ran]) -> list[float | None]:
    return [each.summary.output_tokens_per_s for each in ran]
