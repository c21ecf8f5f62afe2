"""What earlier attempts of a request leave to the next one."""

from dataclasses import dataclass, field

from heliostat.errors import LegFailedError, VersionsGoneError
from heliostat.wire import TokenFrame
from router.match import RequestVersions

MAX_ATTEMPTS = 3
"""Tries of a request without a new token. One replica may be lost, and the next one busy falling, too."""


@dataclass(slots=True)
class Progress:
    """How far a request's answer has come, and whom its next attempt should avoid."""

    versions: RequestVersions
    generated: list[int] = field(default_factory=list)
    started: bool = False
    avoid: set[str] = field(default_factory=set)
    fruitless: int = 0

    def take(self, frame: TokenFrame) -> int:
        """The client gets this frame; how many tokens are in it."""
        num_tokens = 0
        for delta in frame.deltas:
            num_tokens += len(delta.token_ids)
            self.generated += delta.token_ids
        self.started, self.fruitless = True, 0
        return num_tokens

    def left(self, tokens: int) -> int:
        """How many of so many output tokens may still come; 0 stays 0, which stands for no limit or guess."""
        return tokens and max(1, tokens - len(self.generated))

    def goes_on(self, error: LegFailedError, bound: str) -> bool:
        """Whether another attempt can carry on from here; also notes whom it should avoid.

        `bound` is that of the request (`router.pipeline.GenerateRequest`).
        """
        if error.replica:
            self.avoid.add(error.replica)
        if isinstance(error, VersionsGoneError) or (self.started and bound):
            return False
        return self.fruitless < MAX_ATTEMPTS
