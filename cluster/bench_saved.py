"""One line for each request, as `heliostat bench --save-requests` writes it."""

from collections.abc import Iterable
from pathlib import Path

from cluster.bench_figures import Frozen
from cluster.bench_record import Record


class SavedRequest(Frozen):
    """`due_s`, `sent_s` and `ended_s` count from the run's beginning; a closed loop's are due when sent.

    `counted`: the server has counted the output tokens, else they are pieces. `itl_ms` are the gaps between
    pieces. `error` is the failure's class, empty where there was none, `status` 0 where no server said
    anything.
    """

    model: str
    due_s: float
    sent_s: float
    ended_s: float
    ttft_ms: float | None
    tpot_ms: float | None
    e2e_ms: float | None
    itl_ms: tuple[float, ...]
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    counted: bool
    error: str = ""
    status: int = 0
    message: str = ""

    @classmethod
    def of(cls, record: Record, began_s: float) -> "SavedRequest":
        """A failed request has the times of what had come."""
        failure = record.failure
        return cls(
            model=record.model,
            due_s=record.times.due_s - began_s,
            sent_s=record.sent_s - began_s,
            ended_s=record.ended_s - began_s,
            ttft_ms=record.ttft_ms,
            tpot_ms=record.tpot_ms,
            e2e_ms=record.e2e_ms,
            itl_ms=tuple(record.times.gaps_ms),
            prompt_tokens=record.usage.prompt_tokens,
            cached_tokens=record.usage.cached_tokens,
            output_tokens=record.output_tokens,
            counted=record.counted,
            error=failure.kind if failure else "",
            status=failure.status if failure else 0,
            message=failure.message if failure else "",
        )


def save_requests(path: Path, requests: Iterable[SavedRequest]) -> None:
    """JSONL, in the order in which they were over."""
    path.write_text("".join(f"{each.model_dump_json()}\n" for each in requests), encoding="utf-8")
