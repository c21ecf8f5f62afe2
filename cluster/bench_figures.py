"""From what became of each request to what a report says. Pure: no clock, no I/O."""

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from cluster.bench_record import Record
from cluster.percentiles import Percentiles


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Slo(Frozen):
    """What makes an answer good, ms; None: anything does. One token has no TPOT to miss."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None

    def keeps(self, record: Record) -> bool:
        """A failed request keeps nothing."""
        if record.failure is not None or record.ttft_ms is None:
            return False
        limits = (
            (record.ttft_ms, self.ttft_ms),
            (record.tpot_ms, self.tpot_ms),
            (record.e2e_ms, self.e2e_ms),
        )
        return all(limit_ms is None or took_ms is None or took_ms <= limit_ms for took_ms, limit_ms in limits)


class ErrorCount(Frozen):
    """Requests that failed alike. `status` is 0 where no server said anything; `message` is the first's."""

    kind: str
    status: int
    count: int
    message: str


class Figures(Frozen):
    """Of some requests that are over. Latencies, tokens and rates are those of the ones that were answered.

    TTFT and end-to-end times count from when a request was due, in ms. ITL are the gaps between all pieces of
    all answers. `cached_tokens` of the prompt tokens
    came from a cache, `cross_model_tokens` of those because another model had brought them; None where no
    server tells. `good` kept the SLO. `counted` were counted in tokens by the server, the other answers in
    pieces. Rates are per second of the whole run.
    """

    ok: int
    failed: int
    errors: tuple[ErrorCount, ...]
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    itl_ms: Percentiles
    e2e_ms: Percentiles
    prompt_tokens: int
    prompt_tokens_least: int
    prompt_tokens_most: int
    output_tokens: int
    cached_tokens: int | None
    cross_model_tokens: int | None
    counted: int
    requests_per_s: float
    output_tokens_per_s: float
    good: int
    goodput_per_s: float


def figures(records: Sequence[Record], elapsed_s: float, slo: Slo) -> Figures:
    """Of a run that took so long, from its first request to its last answer."""
    answered = [record for record in records if record.failure is None]
    usages = [record.usage for record in answered]
    prompts = [usage.prompt_tokens for usage in usages if usage.prompt_tokens]
    cached = sum(usage.cached_tokens for usage in usages)
    tells = any(record.tells for record in answered)
    output_tokens = sum(record.output_tokens for record in answered)
    good = sum(slo.keeps(record) for record in records)
    per_s = 1 / elapsed_s if elapsed_s > 0 else 0.0
    return Figures(
        ok=len(answered),
        failed=len(records) - len(answered),
        errors=_errors(records),
        ttft_ms=Percentiles.of(record.ttft_ms for record in answered),
        tpot_ms=Percentiles.of(record.tpot_ms for record in answered),
        itl_ms=Percentiles.of(gap_ms for record in answered for gap_ms in record.times.gaps_ms),
        e2e_ms=Percentiles.of(record.e2e_ms for record in answered),
        prompt_tokens=sum(prompts),
        prompt_tokens_least=min(prompts, default=0),
        prompt_tokens_most=max(prompts, default=0),
        output_tokens=output_tokens,
        cached_tokens=cached if tells or cached else None,
        cross_model_tokens=sum(usage.cross_model_tokens for usage in usages) if tells else None,
        counted=sum(record.counted for record in answered),
        requests_per_s=len(answered) * per_s,
        output_tokens_per_s=output_tokens * per_s,
        good=good,
        goodput_per_s=good * per_s,
    )


def by_model(
    models: Sequence[str], records: Sequence[Record], elapsed_s: float, slo: Slo
) -> dict[str, Figures]:
    """Of each of these models."""
    return {
        model: figures([record for record in records if record.model == model], elapsed_s, slo)
        for model in models
    }


def _errors(records: Sequence[Record]) -> tuple[ErrorCount, ...]:
    """The most frequent first."""
    failures = [record.failure for record in records if record.failure is not None]
    first = {(each.kind, each.status): each.message for each in reversed(failures)}
    counted = Counter((each.kind, each.status) for each in failures)
    return tuple(
        ErrorCount(kind=kind, status=status, count=count, message=first[kind, status])
        for (kind, status), count in counted.most_common()
    )
