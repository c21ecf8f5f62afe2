"""Requests as the simulator sees them: sizes, and names for what their prompts have in common.

No token exists here. A prompt is a chain of blocks of `block_tokens`, each named by a number that stands for
its content *and everything before it*: prompts with the same names at the front have the same beginning. The
cluster mixes the KV domain into each name (`simulator.cluster`), so names need not be told apart by model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model.

    `blocks` names the blocks of the whole prompt, the last, partly filled one included:
    `ceil(prompt_tokens / block_tokens)` of them. `kept_blocks` names the full blocks of prompt and answer
    together, where the workload knows that a later prompt will contain the answer; else it is empty.
    """

    model: str
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]
    kept_blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """Calls one after the other, each sent when the one before is answered (and after `pause_s`).

    A single request is a session of one call. `name` is what the client calls the conversation, empty if it
    says nothing.
    """

    name: str
    at_s: float
    calls: tuple[Call, ...]
    pause_s: float = 0.0


class Workload(Protocol):
    """What arrives, drawn from a seed before anything runs: every topology and policy gets the same.

    `models` are ordered by popularity where there is one. `description` is one line for people.
    """

    @property
    def description(self) -> str: ...

    @property
    def models(self) -> tuple[str, ...]: ...

    @property
    def block_tokens(self) -> int: ...

    @property
    def duration_s(self) -> float:
        """No session begins later."""

    def sessions(self, seed: int) -> Iterator[Session]:
        """In the order of `at_s`. The same seed gives the same sessions."""
