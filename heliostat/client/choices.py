"""One choice of a stream, put together out of its pieces."""

from collections import defaultdict

from heliostat.client.answer import Choice, Piece, TokenLogprob, ToolCallDelta
from heliostat.client.messages import ToolCall


class CallNumbers:
    """Which of a choice's tool calls a delta belongs to.

    OpenAI numbers them. Other servers give all of them one number, or none at all; a new call is then known
    by its id.
    """

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._of_index: dict[int | None, int] = {}

    def number(self, index: int | None, call_id: str) -> int:
        """The call's, counted from 0."""
        number = self._of_index.get(index)
        known = "" if number is None else self._ids[number]
        if number is None or (call_id and known and call_id != known):
            free = index is not None and index not in self._ids
            number = index if free and index is not None else max(self._ids, default=-1) + 1
            known = ""
        self._ids[number] = known or call_id
        # A delta without a number goes on with the call before it.
        self._of_index[index] = self._of_index[None] = number
        return number


class ChoiceSoFar:
    """One choice's pieces, put together once they are asked for."""

    def __init__(self) -> None:
        self.numbers = CallNumbers()
        self.text: list[str] = []
        self.finish_reason: str | None = None
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._token_ids: list[int] = []
        self._calls: defaultdict[int, list[ToolCallDelta]] = defaultdict(list)

    def add(self, piece: Piece) -> None:
        """The next piece."""
        self.text.append(piece.text)
        self._reasoning.append(piece.reasoning)
        self._refusal.append(piece.refusal)
        self._logprobs += piece.logprobs
        self._token_ids += piece.token_ids
        self.finish_reason = piece.finish_reason or self.finish_reason
        for call in piece.tool_calls:
            self._calls[call.index].append(call)

    def choice(self, index: int) -> Choice:
        """As far as it has come."""
        return Choice(
            index=index,
            text="".join(self.text),
            finish_reason=self.finish_reason,
            tool_calls=tuple(_joined(parts) for _, parts in sorted(self._calls.items())),
            logprobs=tuple(self._logprobs),
            reasoning="".join(self._reasoning),
            refusal="".join(self._refusal),
            token_ids=tuple(self._token_ids),
        )


def _joined(parts: list[ToolCallDelta]) -> ToolCall:
    return ToolCall(
        id=next((part.id for part in parts if part.id), ""),
        name="".join(part.name for part in parts),
        arguments="".join(part.arguments for part in parts),
    )
