"""What every model and every pool has taken, and how long it took: one router's books.

Plain numbers in fixed places, written once per request when it is over; what a prefill saved is known, and
told to the client, when that is. `deployments.metrics` shows them to Prometheus, `/status` shows a part of
them.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from heliostat.spec import Model, Spec
from heliostat.status import ModelStatus
from heliostat.wire import Load, Role
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
    `cross_model_tokens` a part of that: cached because another model had brought them there
    (`deployments.bringers`). `decode_slot_s` runs from the end of the first prefill to the end of the
    request. `kv_byte_s` is the KV held in that time, taken to grow evenly from the prompt's to the whole
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


@dataclass(frozen=True, slots=True)
class Account:
    """What one model has taken of one pair of pools; a name that comes back on other pools gets a new one."""

    model: str
    prefill: str
    decode: str
    figures: Figures = field(default_factory=Figures)

    def pool(self, role: Role) -> str:
        """Its pool in that role."""
        return self.prefill if role is Role.PREFILL else self.decode


class Accounts:
    """The books of one router. Names come from the operator alone, so nothing grows with the traffic.

    A removed model's account stays: its last requests may not be over, and no counter may go backwards.

    KV bytes per token are those of an average attempt, so a failed prefill makes them a little too few.
    """

    def __init__(self, spec: Spec, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[tuple[str, str, str], Account] = {}
        self._last: dict[str, Account] = {}
        self._served: dict[str, Model] = {}
        self._rates: dict[str, float] = {}
        for name, model in spec.models.items():
            self.add(name, model)

    def add(self, name: str, model: Model) -> None:
        """One more model."""
        self._served[name] = model
        key = (name, model.prefill, model.decode)
        self._last[name] = self._accounts.setdefault(key, Account(*key))

    def remove(self, name: str) -> None:
        """The model is not served any more. Its account takes what it still runs, and is shown no longer."""
        del self._served[name]

    def prefilled(self, model: str, trace: Trace, load: Load) -> None:
        """The prompt's KV is there; to be called once for each request, before anything of its answer goes
        out. Notes in the trace how long computing the cached tokens would have taken.

        `load` is that of the replica where the KV is. One that has computed little of late withholds its
        rate: then the last one of its pool counts.
        """
        account = self._last.get(model)
        if account is None:
            return
        if load.prefill_tokens_per_s:
            self._rates[account.prefill] = load.prefill_tokens_per_s
        if rate := self._rates.get(account.prefill):
            trace.saved_ms = trace.cached_tokens / rate * 1000

    def ended(
        self,
        model: str,
        token_ids: tuple[int, ...],
        trace: Trace,
        outcome: Outcome,
        ended_s: float | None = None,
    ) -> None:
        """A request is over; to be called once for each. A model that never was here counts as nothing.

        `token_ids` is the prompt, `ended_s` is on the trace's clock (None: now).
        """
        account = self._last.get(model)
        if account is None:
            return
        figures = account.figures
        ended_s = self._clock() if ended_s is None else ended_s
        figures.requests[outcome] += 1
        figures.output_tokens += trace.output_tokens
        figures.transfer_bytes += trace.handoff_bytes
        figures.failovers += max(0, trace.attempts - 1)
        if trace.prefilled_s:
            figures.prompt_tokens += len(token_ids)
            figures.cached_tokens += min(trace.cached_tokens, len(token_ids))
            figures.cross_model_tokens += trace.cross_model_tokens
            self._decoded(figures, len(token_ids), trace, ended_s)
        _time(figures.stages, trace, outcome, ended_s)

    def served(self) -> Mapping[str, Model]:
        """The models that are served now."""
        return self._served

    def model(self, name: str) -> Figures:
        """A model's figures on the pools that it has now, or had last; not a copy. Raises KeyError."""
        return self._last[name].figures

    def accounts(self) -> tuple[Account, ...]:
        """All that there are, also of removed models, in the order in which they came."""
        return tuple(self._accounts.values())

    def pool(self, role: Role, name: str) -> Figures:
        """The sum over the models that use the pool, or did; all zero when none does."""
        total = Figures()
        for account in self._accounts.values():
            if account.pool(role) == name:
                total.merge(account.figures)
        return total

    def to_status(self) -> tuple[ModelStatus, ...]:
        """Every model that is served, in the order of the spec."""
        return tuple(_status(name, self._last[name].figures) for name in self._served)

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
