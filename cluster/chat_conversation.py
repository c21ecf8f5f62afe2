"""One conversation that several models answer: the same context, whoever is asked next."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cluster.answer_times import AnswerTimes
from cluster.dialect import Dialect, Droppable, first_taken
from heliostat.client import Answer, AsyncClient, AsyncContext, ChatOptions, Message, Piece

Show = Callable[[Piece], None]


class Told(NamedTuple):
    """A whole answer, and when it came."""

    answer: Answer
    times: AnswerTimes


class Conversation:
    """What was said so far, and who is asked next (`model`). `clock` is monotonic, in seconds."""

    _context: AsyncContext

    def __init__(
        self,
        client: AsyncClient,
        model: str,
        *,
        system: str = "",
        session: str = "",
        options: ChatOptions | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self._client = client
        self._system = system
        self._session = session
        self._options = options or ChatOptions()
        self._clock = clock
        self._dialects: dict[str, Dialect] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all that was said but the system's message."""
        self._context = self._client.context(system=self._system, session=self._session)

    async def ask(self, text: str, show: Show) -> Told:
        """Question and answer become part of the conversation; each piece is shown as it comes.

        What a model does not take of a request is found at its first answer, and remembered.

        An answer that is cancelled stays as far as it came, because it was read; the server stops. After
        an error the question is forgotten. Raises HeliostatError.
        """
        asked = Message("user", text)
        said: list[str] = []

        async def tell(dialect: Dialect) -> Told:
            times = AnswerTimes(self._clock())
            stream = self._context.stream_ask(self.model, asked, **dialect.said(self._options))
            async with stream:
                async for piece in stream:
                    times.note(piece, self._clock())
                    said.append(piece.text)
                    show(piece)
            return Told(stream.answer, times)

        try:
            known = self._dialects.get(self.model)
            rungs = iter([known]) if known else self._rungs()
            dialect, told = await first_taken(rungs, tell, may_repeat=lambda: not said)
        except asyncio.CancelledError:
            if any(said):
                self._context.add((asked, Message("assistant", "".join(said))))
            raise
        self._dialects[self.model] = dialect
        self._context.add((asked, told.answer.message))
        return told

    def _rungs(self) -> Iterator[Dialect]:
        # A temperature that somebody has asked for is not dropped: they are told that there is none.
        limit: tuple[Droppable, ...] = ("max_tokens",) if "max_tokens" in self._options else ()
        return Dialect().rungs("usage", *limit)
