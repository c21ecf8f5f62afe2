"""What a client may tell of a request beside the request itself; a server may ignore all of it."""

from dataclasses import dataclass
from math import isfinite

from heliostat import headers
from heliostat.errors import HeliostatError


@dataclass(frozen=True, slots=True)
class Hints:
    """Sent as headers, so that any server can be asked.

    `priority`: lower is served first, as in vLLM. `deadline_s`: how long the answer may take to begin, from
    the call on, retries and all; the server is told what is left of it. `expected_tokens`: how long the
    answer is likely to be. `reuse_soon`: what the prompt begins with will be asked again soon, so its KV is
    worth keeping.
    """

    priority: int = 0
    deadline_s: float | None = None
    expected_tokens: int | None = None
    reuse_soon: bool = False

    def __post_init__(self) -> None:
        """Raises HeliostatError for a deadline that is none; one that is over may be told."""
        if self.deadline_s is not None and not isfinite(self.deadline_s):
            raise HeliostatError(f"deadline_s is {self.deadline_s}; give it seconds, like 2.5, or None")

    def headers(self) -> dict[str, str]:
        """All but the deadline, of which every attempt has less."""
        told = {}
        if self.priority:
            told[headers.PRIORITY] = str(self.priority)
        if self.expected_tokens:
            told[headers.EXPECTED_TOKENS] = str(self.expected_tokens)
        if self.reuse_soon:
            told[headers.REUSE] = "soon"
        return told


NO_HINTS = Hints()
