"""What a context decides: its messages, its session, what was used. No I/O."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TypeAlias, cast

from heliostat import headers
from heliostat.client.answer import Answer
from heliostat.client.header_lines import merged
from heliostat.client.hints import Hints
from heliostat.client.messages import Message, Messages, as_messages
from heliostat.client.options import ChatOptions
from heliostat.client.requests import Request, chat_request
from heliostat.client.usage import Totals
from heliostat.errors import HeliostatError, SomeFailedError

Outcome: TypeAlias = Answer | HeliostatError
Question: TypeAlias = tuple[str, Messages]
"""A model's name, and what it is asked."""

Questions: TypeAlias = Mapping[str, Messages] | Sequence[Question]
"""Of one `ask_all`."""


@dataclass(frozen=True, slots=True)
class ContextUsage(Totals):
    """What was asked over a context so far, in all and by model."""

    by_model: Mapping[str, Totals] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question over a context, as it is sent: what its author does to it later changes nothing."""

    request: Request
    model: str
    question: tuple[dict[str, object], ...]
    keep: bool = False


def opening(system: str, documents: Sequence[str]) -> tuple[Message, ...]:
    """One system message: chat templates differ in how many they take, and where."""
    content = "\n\n".join(part for part in (system, *documents) if part)
    return (Message("system", content),) if content else ()


class ContextState:
    """All requests of a context begin with the same messages: their prompts have a long prefix in common."""

    def __init__(self, messages: Messages, session: str, hints: Hints) -> None:
        """Raises InvalidRequestError for a session that cannot be a header."""
        merged({headers.SESSION: session})
        self.session = session
        self._hints = hints
        self._messages = _copied(messages)
        self._used: defaultdict[str, Totals] = defaultdict(Totals)
        self._lock = Lock()  # the client that blocks asks from several threads

    @property
    def messages(self) -> tuple[dict[str, object], ...]:
        """As they go over the wire, a copy."""
        return deepcopy(self._said())

    @property
    def usage(self) -> ContextUsage:
        with self._lock:
            used = dict(self._used)
        total = sum(used.values(), Totals())
        return ContextUsage(
            total.requests,
            total.prompt_tokens,
            total.output_tokens,
            total.cached_tokens,
            total.cross_model_tokens,
            total.saved_ms,
            used,
        )

    def fork(self) -> "ContextState":
        """The same messages and session; what it uses, it counts itself."""
        return ContextState(self._said(), self.session, self._hints)

    def add(self, said: Messages) -> None:
        copied = _copied(said)
        with self._lock:
            self._messages += copied

    def ask(
        self,
        model: str,
        question: Messages,
        options: ChatOptions,
        *,
        streamed: bool = False,
        keep: bool = False,
    ) -> Asked:
        """The context and the question. The session and that it will be asked again ride along."""
        copied = _copied(question)
        hints = replace(options.get("hints", self._hints), reuse_soon=True)
        more = merged({headers.SESSION: self.session}, options.get("extra_headers", {}))
        told = cast(ChatOptions, {**options, "hints": hints, "extra_headers": more})
        request = chat_request(model, (*self._said(), *copied), streamed, told)
        return Asked(request, model, copied, keep)

    def ask_all(self, questions: Questions, options: ChatOptions) -> tuple[Asked, ...]:
        """Of the context as it is now. Raises what `ask` raises, before any of them is sent."""
        named = questions.items() if isinstance(questions, Mapping) else questions
        return tuple(self.ask(model, question, options) for model, question in named)

    def answered(self, asked: Asked, answer: Answer) -> None:
        """Count it; a question that is kept becomes part of the context with its answer."""
        kept = (*asked.question, *as_messages(answer.message)) if asked.keep else ()
        with self._lock:
            self._used[asked.model] += Totals.of(answer.usage)
            self._messages += kept

    def _said(self) -> tuple[dict[str, object], ...]:
        with self._lock:
            return self._messages


def _copied(said: Messages) -> tuple[dict[str, object], ...]:
    """Of our own: what its author does to a message later must not change the prompts."""
    return deepcopy(as_messages(said))


def gathered(
    asked: Sequence[Asked], outcomes: Sequence[Outcome], by_model: bool, return_errors: bool
) -> Mapping[str, Outcome] | Sequence[Outcome]:
    """By model, or in order. Raises SomeFailedError, with the answers, if one of the outcomes is none."""
    keys = [each.model if by_model else place for place, each in enumerate(asked)]
    found = dict[str | int, Outcome](zip(keys, outcomes, strict=True))
    errors = {key: outcome for key, outcome in found.items() if isinstance(outcome, HeliostatError)}
    if errors and not return_errors:
        answers = {key: outcome for key, outcome in found.items() if isinstance(outcome, Answer)}
        raise SomeFailedError(answers, errors)
    return {str(key): outcome for key, outcome in found.items()} if by_model else outcomes
