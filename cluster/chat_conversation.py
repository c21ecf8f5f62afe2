"""One conversation that several models answer: the same context, whoever is asked next."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from cluster.answer_times import AnswerTimes
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
        self.reset()

    def reset(self) -> None:
        """Forget all that was said but the system's message."""
        self._context = self._client.context(system=self._system, session=self._session)

    async def ask(self, text: str, show: Show) -> Told:
        """Question and answer become part of the conversation; each piece is shown as it comes.

        An answer that is cancelled stays as far as it came, because it was read; the server stops. After
        an error the question is forgotten. Raises HeliostatError.
        """
        asked = Message("user", text)
        times = AnswerTimes(self._clock())
        stream = self._context.stream_ask(self.model, asked, **self._options)
        said: list[str] = []
        try:
            async with stream:
                async for piece in stream:
                    times.note(piece, self._clock())
                    said.append(piece.text)
                    show(piece)
        except asyncio.CancelledError:
            if any(said):
                self._context.add((asked, Message("assistant", "".join(said))))
            raise
        self._context.add((asked, stream.answer.message))
        return Told(stream.answer, times)
