"""One request inside a simulated replica."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from router.admission import Slot


@dataclass(slots=True, eq=False)
class Job:
    """What a replica is asked to do, and how far it is. Times are virtual seconds.

    With `output_tokens` 0 it is a prefill: compute `prompt_tokens` of KV. With `fetch` it is a decode leg:
    the prompt's KV comes from elsewhere, and `fetch(begin_s, missing_tokens)` says when it is there.
    Otherwise the replica does both, as an engine without disaggregation. `blocks` names the full blocks of
    the prompt that the replica may share, `kept` those of prompt and answer together.
    """

    model: str
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]
    done: asyncio.Future[None]
    kept: tuple[int, ...] = ()
    fetch: Callable[[float, int], float] | None = None
    slot: Slot | None = None
    """Where tokens are reported to admission as they come."""

    cached_tokens: int = 0
    """Of the prompt, found in the replica when it was first admitted."""
    uncached_tokens: int = 0
    """What the replica expects to compute for it, until it is done: for its load."""
    first_s: float = 0.0
    end_s: float = 0.0
    preempted: int = 0

    computed: int = 0
    """Tokens of KV that are there while the prompt is being computed."""
    target: int = 0
    generated: int = 0
    """Output tokens at the last boundary at which it joined the batch."""
    told: int = 0
    """Output tokens that admission has been told of."""
    joined_step: int = 0
    order: int = 0
    held: tuple[int, ...] = field(default=())
    """Named blocks that it holds."""
    private: int = 0
    """Private tokens, without what the batch has grown by since it joined."""

    @property
    def context(self) -> int:
        """Tokens of KV at the last boundary at which it joined the batch."""
        return self.prompt_tokens + self.generated

    def tell(self, generated: int) -> None:
        """Tells admission that it has so many output tokens by now."""
        if self.slot is not None and generated > self.told:
            self.slot.served(generated - self.told)
            self.told = generated

    def answer(self) -> None:
        """Whoever waits for it hears that it is over."""
        if not self.done.done():
            self.done.set_result(None)
