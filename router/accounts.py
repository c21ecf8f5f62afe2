"""What every model and every pool has taken, and how long it took: one router's books.

Plain numbers in fixed places, written once per request when it is over. `deployments.metrics` shows them
to Prometheus, `/status` shows a part of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum

from heliostat.spec import Spec
from heliostat.status import ModelStatus
from heliostat.wire import Role
from router.cross_model import MAX_BLOCKS, FirstModels
from router.histogram import Histogram
from router.trace import Trace


class Outcome(StrEnum):
    """How a request ended; `refused` is the client's limit (429), `unavailable` an empty pool (503)."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"


class Stage(StrEnum):
    """What is timed of a request: parts of it, and the three figures that clients feel."""

    ADMIT = "admit"
    PREFILL = "prefill"
    HANDOFF = "handoff"
    DECODE = "decode"
    TTFT = "ttft"
    TPOT = "tpot"
    E2E = "e2e"


@dataclass(slots=True)
class Figures:
    """What a model, or the models of a pool, have taken since the router started.

    `prompt_tokens` counts prompts whose prefill ended, each once; so `cached_tokens` is a part of it, and
    `cross_model_tokens` a part of that: cached because another model of the prefill pool had brought
    them. `decode_slot_s` runs from the end of the first prefill to the end of the request.
    `kv_byte_s` is the KV held in that time, taken to grow evenly from the prompt's to the whole
    context's. `transfer_bytes` counts every handoff, `failovers` every attempt beyond the first.
    """

    requests: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    stages: dict[Stage, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in Stage})
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cross_model_tokens: int = 0
    output_tokens: int = 0
    decode_slot_s: float = 0.0
    kv_byte_s: float = 0.0
    transfer_bytes: int = 0
    failovers: int = 0

    def merge(self, other: "Figures") -> None:
        """Add another model's."""
        for outcome, count in other.requests.items():
            self.requests[outcome] += count
        for stage, histogram in other.stages.items():
            self.stages[stage].merge(histogram)
        for entry in fields(self)[2:]:
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))


class Accounts:
    """The books of one router. Names come from the spec alone, so nothing grows with the traffic.

    KV bytes per token are those of an average attempt, so a failed prefill makes them a little too few.
    """

    def __init__(
        self, spec: Spec, clock: Callable[[], float] = time.monotonic, max_blocks: int = MAX_BLOCKS
    ) -> None:
        self._clock = clock
        self._routes = spec.models
        self._models = {name: Figures() for name in spec.models}
        self._first = FirstModels(max_blocks)
        users = [model.prefill for model in spec.models.values()]
        self._shared = {pool for pool in users if users.count(pool) > 1}

    def ended(
        self,
        model: str,
        token_ids: tuple[int, ...],
        trace: Trace,
        outcome: Outcome,
        ended_s: float | None = None,
    ) -> None:
        """A request is over; to be called once for each. A model that is not in the spec counts as nothing.

        `token_ids` is the prompt, `ended_s` is on the trace's clock (None: now).
        """
        figures = self._models.get(model)
        if figures is None:
            return
        ended_s = self._clock() if ended_s is None else ended_s
        figures.requests[outcome] += 1
        figures.output_tokens += trace.output_tokens
        figures.transfer_bytes += trace.handoff_bytes
        figures.failovers += max(0, trace.attempts - 1)
        if trace.prefilled_s:
            figures.prompt_tokens += len(token_ids)
            self._prefilled(figures, model, token_ids, trace)
            self._decoded(figures, len(token_ids), trace, ended_s)
        _time(figures.stages, trace, outcome, ended_s)

    def model(self, name: str) -> Figures:
        """A model's figures as they stand, not a copy. Raises KeyError."""
        return self._models[name]

    def pool(self, role: Role, name: str) -> Figures:
        """The sum over the models that use the pool; all zero when none does."""
        total = Figures()
        for model, route in self._routes.items():
            if name == (route.prefill if role is Role.PREFILL else route.decode):
                total.merge(self._models[model])
        return total

    def to_status(self) -> tuple[ModelStatus, ...]:
        """Every model, in the order of the spec."""
        return tuple(_status(name, figures) for name, figures in self._models.items())

    def _prefilled(self, figures: Figures, model: str, token_ids: tuple[int, ...], trace: Trace) -> None:
        cached_tokens = min(trace.cached_tokens, len(token_ids))
        figures.cached_tokens += cached_tokens
        pool = self._routes[model].prefill
        if pool in self._shared and trace.prefill_replica is not None:
            # x_N is the decode module's (rule 1): its KV is in no prefill replica.
            figures.cross_model_tokens += self._first.cross_model_tokens(
                pool, model, token_ids[:-1], cached_tokens
            )

    @staticmethod
    def _decoded(figures: Figures, prompt_tokens: int, trace: Trace, ended_s: float) -> None:
        held_s = ended_s - trace.prefilled_s
        figures.decode_slot_s += held_s
        # Every attempt has moved the prompt's KV once, unless its prefill failed.
        bytes_per_token = trace.handoff_bytes / max(1, trace.attempts) / prompt_tokens
        figures.kv_byte_s += bytes_per_token * (prompt_tokens + trace.output_tokens / 2) * held_s


def _time(stages: dict[Stage, Histogram], trace: Trace, outcome: Outcome, ended_s: float) -> None:
    """Enter the stages that the request came through.

    TPOT and end to end only of finished requests: one that breaks off early is not a fast one.
    """
    started_s = trace.started_s or trace.admitted_s  # nobody noted when it came: then it begins here
    if trace.admitted_s:
        stages[Stage.ADMIT].add((trace.admitted_s - started_s) * 1000)
        if trace.prefilled_s:
            stages[Stage.PREFILL].add((trace.prefilled_s - trace.admitted_s) * 1000)
    if trace.first_token_s:
        if trace.prefill_replica is not None:
            stages[Stage.HANDOFF].add(trace.save_ms + trace.load_ms)
        stages[Stage.DECODE].add((trace.first_token_s - trace.prefilled_s) * 1000)
        stages[Stage.TTFT].add((trace.first_token_s - started_s) * 1000)
    if outcome is Outcome.FINISHED:
        if trace.first_token_s and trace.output_tokens > 1:
            stages[Stage.TPOT].add((ended_s - trace.first_token_s) * 1000 / (trace.output_tokens - 1))
        stages[Stage.E2E].add((ended_s - started_s) * 1000)


def _status(name: str, figures: Figures) -> ModelStatus:
    ttft, tpot = figures.stages[Stage.TTFT], figures.stages[Stage.TPOT]
    return ModelStatus(
        name=name,
        requests={outcome.value: count for outcome, count in figures.requests.items()},
        prompt_tokens=figures.prompt_tokens,
        cached_tokens=figures.cached_tokens,
        cross_model_tokens=figures.cross_model_tokens,
        output_tokens=figures.output_tokens,
        ttft_p50_ms=ttft.quantile(0.5),
        ttft_p95_ms=ttft.quantile(0.95),
        tpot_p50_ms=tpot.quantile(0.5),
        tpot_p95_ms=tpot.quantile(0.95),
    )
