"""A place in a decode pool, as long as a request holds it."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Slot:
    """One running request: tell it what was served."""

    model: str
    pool: str
    prompt_tokens: int
    expected_tokens: int
    """Output tokens that were likely when it began (`Admission.expected_tokens`)."""
    on_served: Callable[["Slot", int], None] = field(repr=False)
    priority: int = 0
    began_at_s: float = 0.0
    output_tokens: int = 0
    seen: bool = False
    """Whether the pool's figures contain it."""

    @property
    def open_tokens(self) -> int:
        """Output tokens that are still expected."""
        return max(0, self.expected_tokens - self.output_tokens)

    @property
    def claim(self) -> int:
        """KV tokens that it needs beyond what the pool's figures contain."""
        return self.open_tokens + (0 if self.seen else self.prompt_tokens + self.output_tokens)

    def served(self, tokens: int) -> None:
        """So many new output tokens went to the client; call it for every frame."""
        self.on_served(self, tokens)
