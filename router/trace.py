"""What became of one request, filled in while it runs."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Trace:
    """Replicas, tokens and times of one request. Times are seconds, monotonic; 0: not yet.

    `handoff_bytes` counts every attempt, `cached_tokens` the last one; `failures` are the messages of the
    legs that failed, also when another replica then did the work.
    """

    prefill_replica: str | None = None
    decode_replica: str | None = None
    cached_tokens: int = 0
    output_tokens: int = 0
    handoff_bytes: int = 0
    save_ms: float = 0.0
    load_ms: float = 0.0
    attempts: int = 0
    finished: bool = False
    """Whether the client has its whole answer; a stop string ends one before the decode replica does."""
    failures: list[str] = field(default_factory=list)
    started_s: float = 0.0
    admitted_s: float = 0.0
    prefilled_s: float = 0.0
    first_token_s: float = 0.0
    retry_after_s: float = 0.0
