"""What admission did, in plain numbers, for the accounting."""

from dataclasses import dataclass, field

from router.admission.refusal import Reason


@dataclass(slots=True)
class ModelCounts:
    """One model in one router. `queued`, with the `queued_tokens` of their prompts, and `running` are now,
    everything else is since the start.

    A request that passes `check` and is refused in the queue counts as refused once; `admitted` counts
    slots. `cancelled` left the queue by themselves.
    """

    queued: int = 0
    queued_tokens: int = 0
    running: int = 0
    admitted: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    refused: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
