"""When a streamed answer came, and what that says of its tokens."""

from dataclasses import dataclass, field

from heliostat.client import Piece


@dataclass(slots=True)
class AnswerTimes:
    """Stamps in seconds of one monotonic clock. `due_s`: when the request was due.

    `pieces` counts those that say something: one may hold several tokens. What says nothing is no token:
    some servers send the assistant's role first, before there is any. `gaps_ms` are the times between pieces
    that say something.
    """

    due_s: float
    first_s: float | None = None
    last_s: float | None = None
    pieces: int = 0
    gaps_ms: list[float] = field(default_factory=list)
    _said_s: float | None = field(default=None, init=False)

    def note(self, piece: Piece, now_s: float) -> None:
        """It came now. The end counts as a token that is not shown, also where it is all there is."""
        says = bool(piece.text or piece.reasoning or piece.tool_calls)
        if not says and not piece.finish_reason:
            return
        self.first_s = now_s if self.first_s is None else self.first_s
        self.last_s = now_s
        if says:
            self.pieces += 1
            if self._said_s is not None:
                self.gaps_ms.append((now_s - self._said_s) * 1000)
            self._said_s = now_s

    @property
    def ttft_ms(self) -> float | None:
        """Time to first token, from when the request was due; None before it."""
        return None if self.first_s is None else (self.first_s - self.due_s) * 1000

    @property
    def e2e_ms(self) -> float | None:
        """From when the request was due to the last token or the end; what a server does then with the
        connection is no part of it. None before the first token."""
        return None if self.last_s is None else (self.last_s - self.due_s) * 1000

    def tpot_ms(self, tokens: int) -> float | None:
        """Time per output token after the first, of so many; None where there is no other."""
        if self.first_s is None or self.last_s is None or tokens < 2:
            return None
        return (self.last_s - self.first_s) * 1000 / (tokens - 1)

    def tokens_per_s(self, tokens: int) -> float | None:
        """After the first token; None where there is no other, or all came at once."""
        each_ms = self.tpot_ms(tokens)
        return 1000 / each_ms if each_ms else None
