"""Why a request is refused, for people: which limit of which model or pool, and what to do."""

from enum import StrEnum

from heliostat.errors import InvalidRequestError, OverloadedError


class Reason(StrEnum):
    """The limits that refuse; also the label of the accounting."""

    REQUEST_RATE = "requests_per_s"
    TOKEN_RATE = "tokens_per_s"
    QUEUE_FULL = "max_queued"
    WAIT_TOO_LONG = "expected_wait"
    PREFILL_BUSY = "prefill_wait"
    DEADLINE = "queue_s"


def refusal(reason: Reason, model: str, pool: str, limit: float, retry_after_s: float) -> OverloadedError:
    """The error for a client. `limit` is the value of the limit that `reason` names, as the spec gives it."""
    what = {
        Reason.REQUEST_RATE: f"The model `{model}` takes {limit:g} requests/s (limits.requests_per_s).",
        Reason.TOKEN_RATE: f"The model `{model}` takes {limit:g} tokens/s (limits.tokens_per_s).",
        Reason.QUEUE_FULL: (
            f"The decode pool `{pool}` is busy, and {limit:g} requests for the model `{model}` are waiting "
            f"already (limits.max_queued)."
        ),
        Reason.WAIT_TOO_LONG: (
            f"The decode pool `{pool}` is busy: a request for the model `{model}` would wait longer than "
            f"{limit:g} s (limits.queue_s)."
        ),
        Reason.PREFILL_BUSY: (
            f"The prefill pool `{pool}` is busy: a prompt for the model `{model}` would wait longer than "
            f"{limit:g} s (limits.queue_s)."
        ),
        Reason.DEADLINE: (
            f"The decode pool `{pool}` was busy: this request for the model `{model}` found no place within "
            f"{limit:g} s (limits.queue_s, or the request's own deadline)."
        ),
    }[reason]
    return OverloadedError(f"{what} Try again in {max(retry_after_s, 0.1):.1f} s.", retry_after_s)


def too_many(n: int, model: str, pool: str, most: float, max_queued: int) -> InvalidRequestError:
    """The error for an `n` that can never fit: at most `most` could run at once."""
    return InvalidRequestError(
        f"`n` is {n}, which the model `{model}` can never serve: at most {most:g} of its requests run at a "
        f"time in the decode pool `{pool}`, and at most {max_queued} wait (limits.max_queued). Ask for at "
        f"most {max(most, max_queued):g} at a time."
    )
