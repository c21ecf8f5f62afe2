"""What a context decides: its messages, its session, what was used. No I/O."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TypeAlias, cast

from heliostat import headers
from heliostat.client.answer import Answer
from heliostat.client.hints import Hints
from heliostat.client.messages import Message, Messages, as_messages
from heliostat.client.options import ChatOptions
from heliostat.client.requests import Request, chat_request
from heliostat.client.usage import Totals
from heliostat.errors import HeliostatError, SomeFailedError

Outcome: TypeAlias = Answer | HeliostatError
Question: TypeAlias = tuple[str, Messages]
"""A model's name, and what it is asked."""


@dataclass(frozen=True, slots=True)
class ContextUsage(Totals):
    """What was asked over a context so far, in all and by model."""

    by_model: Mapping[str, Totals] = field(default_factory=dict)


def opening(system: str, documents: Sequence[str]) -> tuple[Message, ...]:
    """One system message: chat templates differ in how many they take, and where."""
    content = "\n\n".join(part for part in (system, *documents) if part)
    return (Message("system", content),) if content else ()


class ContextState:
    """All requests of a context begin with the same messages: their prompts have a long prefix in common."""

    def __init__(self, messages: Messages, session: str, hints: Hints) -> None:
        self.session = session
        self._hints = hints
        self._messages = _copied(messages)
        self._used: defaultdict[str, Totals] = defaultdict(Totals)
        self._lock = Lock()  # the client that blocks asks from several threads

    @property
    def messages(self) -> tuple[dict[str, object], ...]:
        """As they go over the wire, a copy."""
        return deepcopy(self._messages)

    @property
    def usage(self) -> ContextUsage:
        total = sum(self._used.values(), Totals())
        return ContextUsage(
            total.requests,
            total.prompt_tokens,
            total.output_tokens,
            total.cached_tokens,
            total.cross_model_tokens,
            total.saved_ms,
            dict(self._used),
        )

    def fork(self) -> "ContextState":
        """The same messages and session; what it uses, it counts itself."""
        return ContextState(self._messages, self.session, self._hints)

    def add(self, said: Messages) -> None:
        self._messages += _copied(said)

    def request(self, model: str, question: Messages, streamed: bool, options: ChatOptions) -> Request:
        """The context and the question. The session and that it will be asked again ride along."""
        hints = replace(options.get("hints", self._hints), reuse_soon=True)
        more = {headers.SESSION: self.session, **options.get("extra_headers", {})}
        told = cast(ChatOptions, {**options, "hints": hints, "extra_headers": more})
        return chat_request(model, (*self._messages, *as_messages(question)), streamed, told)

    def answered(self, model: str, question: Messages, answer: Answer, keep: bool) -> None:
        """Count it; a question that is kept becomes part of the context with its answer."""
        with self._lock:
            self._used[model] += Totals.of(answer.usage)
            if keep:
                self.add((*as_messages(question), answer.message))


def _copied(said: Messages) -> tuple[dict[str, object], ...]:
    """Of our own: what its author does to a message later must not change the prompts."""
    return deepcopy(as_messages(said))


def raise_failed(outcomes: Mapping[str | int, Outcome]) -> None:
    """Raises SomeFailedError, with the answers, if one of the outcomes is none."""
    errors = {key: found for key, found in outcomes.items() if isinstance(found, HeliostatError)}
    if errors:
        answers = {key: found for key, found in outcomes.items() if isinstance(found, Answer)}
        raise SomeFailedError(answers, errors)
