"""Several models over one context, in calls that block."""

from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from types import TracebackType
from typing import Literal, Self, TypeAlias, Unpack, overload

from heliostat.client.answer import Answer
from heliostat.client.context import Asked, ContextState, ContextUsage, Outcome, Question, Questions, gathered
from heliostat.client.messages import Messages
from heliostat.client.options import ChatOptions
from heliostat.client.requests import Request
from heliostat.client.sync_stream import Stream
from heliostat.errors import HeliostatError

Ask: TypeAlias = Callable[[Request], Answer]
AskStream: TypeAlias = Callable[[Request, Callable[[Answer], None]], Stream]


class Context:
    """Messages that several models are asked over. On a Heliostat cluster they are prefilled once for each KV
    domain, not once for each model; on any other server these are plain calls.

    Calls raise what those of `Client` raise.
    """

    def __init__(self, state: ContextState, ask: Ask, stream: AskStream) -> None:
        self._state = state
        self._ask = ask
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held: what a server keeps of it goes by its own rules."""

    def ask(
        self, model: str, question: Messages, *, keep: bool = False, **options: Unpack[ChatOptions]
    ) -> Answer:
        """The answer over the context, which only changes with `keep`: then by the question and its answer.

        An empty sequence asks over the context as it is.
        """
        return self._answer(self._state.ask(model, question, options, keep=keep))

    def stream_ask(
        self, model: str, question: Messages, *, keep: bool = False, **options: Unpack[ChatOptions]
    ) -> Stream:
        """`ask` in pieces, for `with`; it counts, and is kept, once it is over."""
        asked = self._state.ask(model, question, options, streamed=True, keep=keep)
        return self._stream(asked.request, lambda answer: self._state.answered(asked, answer))

    @overload
    def ask_all(
        self,
        questions: Mapping[str, Messages],
        *,
        return_errors: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> dict[str, Answer]: ...
    @overload
    def ask_all(
        self,
        questions: Mapping[str, Messages],
        *,
        return_errors: Literal[True],
        **options: Unpack[ChatOptions],
    ) -> dict[str, Outcome]: ...
    @overload
    def ask_all(
        self,
        questions: Sequence[Question],
        *,
        return_errors: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> list[Answer]: ...
    @overload
    def ask_all(
        self, questions: Sequence[Question], *, return_errors: Literal[True], **options: Unpack[ChatOptions]
    ) -> list[Outcome]: ...
    def ask_all(
        self,
        questions: Questions,
        *,
        return_errors: bool = False,
        **options: Unpack[ChatOptions],
    ) -> Mapping[str, Outcome] | Sequence[Outcome]:
        """All at once: a dict by model, or a list in the order of the questions.

        One that fails costs no other its answer: when all are over SomeFailedError is raised, which has the
        answers, or with `return_errors` the errors stand in their places. What cannot be asked at all raises
        before any is sent. The context stays as it is. An interrupt (Ctrl-C) waits for none of the answers.
        """
        by_model = isinstance(questions, Mapping)
        asked = self._state.ask_all(questions, options)
        outcomes: dict[int, Outcome] = {}

        def ask(place: int) -> None:
            outcomes[place] = self._outcome(asked[place])

        # A pool of threads would be waited for, even at the program's end.
        threads = [Thread(target=ask, args=(place,), daemon=True) for place in range(len(asked))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return gathered(asked, [outcomes[place] for place in range(len(asked))], by_model, return_errors)

    def add(self, *messages: Messages) -> None:
        """To the end of the context."""
        for said in messages:
            self._state.add(said)

    def fork(self) -> "Context":
        """Another context with the same messages so far and the same session; it counts its own usage."""
        return Context(self._state.fork(), self._ask, self._stream)

    @property
    def messages(self) -> tuple[dict[str, object], ...]:
        """As they go over the wire."""
        return self._state.messages

    @property
    def session(self) -> str:
        """The session's name."""
        return self._state.session

    @property
    def usage(self) -> ContextUsage:
        """Of all answers so far, in all and by model."""
        return self._state.usage

    def _answer(self, asked: Asked) -> Answer:
        answer = self._ask(asked.request)
        self._state.answered(asked, answer)
        return answer

    def _outcome(self, asked: Asked) -> Outcome:
        try:
            return self._answer(asked)
        except HeliostatError as error:
            return error
