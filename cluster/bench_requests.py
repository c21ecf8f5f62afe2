"""What a benchmark asks, one session after the other, decided by a seed alone."""

import itertools
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from cluster.bench_words import Words
from heliostat.errors import HeliostatError
from simulator.workload.popularity import Chooser, by_turns, by_zipf

Said = str | tuple[dict[str, JsonValue], ...]
"""A prompt, or a chat's messages."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One request. `session` is empty where it shares nothing with others."""

    model: str
    said: Said
    session: str = ""


Session = tuple[Planned, ...]
"""Requests that an agent makes one after the other; where nothing is shared, any that are alike."""

OPEN_SESSIONS = 16


@dataclass(frozen=True, slots=True)
class Prompts:
    """Synthetic prompts: tokens of each, and how many of them at its beginning all of a session have."""

    tokens: int
    shared_tokens: int
    requests_per_session: int


def models_by(models: Sequence[str], zipf: float | None, seed: int) -> Chooser:
    """From a request's session to its model: in turn, or by popularity."""
    return by_turns(models) if zipf is None else by_zipf(models, zipf, random.Random(f"{seed} models"))


def synthetic(prompts: Prompts, words: Words, model_of: Chooser, seed: int, part: str) -> Iterator[Session]:
    """Without end. Another `part` of a run asks other prompts: a warm-up must not fill caches for the rest.

    Raises HeliostatError where a prompt has no room for what it is to hold.
    """
    room, shared = words.room(prompts.tokens), prompts.shared_tokens
    if shared >= room:
        raise HeliostatError(
            f"a shared prefix of {shared} tokens leaves no word of its own to a prompt of {prompts.tokens} "
            f"tokens, of which {words.around} are the chat template's"
        )

    def session(number: int) -> Iterator[Planned]:
        name = f"{seed}-{part}-{number}"
        rng = random.Random(name)
        beginning = [words.text(rng, shared)] if shared else []
        for _ in range(prompts.requests_per_session):
            text = words.joint.join([*beginning, words.text(rng, room - shared)])
            yield Planned(model_of(number), text, name if shared else "")

    return (tuple(session(number)) for number in itertools.count())


def alternating(sessions: Iterator[Session], at_once: int = OPEN_SESSIONS) -> Iterator[Planned]:
    """Requests of so many sessions in turn: those of one session are seldom there at the same time."""
    running = deque(iter(session) for session in itertools.islice(sessions, at_once))
    while running:
        session = running.popleft()
        if (planned := next(session, None)) is not None:
            yield planned
            running.append(session)
        else:
            running.extend(iter(following) for following in itertools.islice(sessions, 1))


class _Row(BaseModel):
    """Further keys are for others: a training sample has its response."""

    model_config = ConfigDict(frozen=True)

    prompt: str | None = None
    messages: tuple[dict[str, JsonValue], ...] | None = None


def read_dataset(path: Path, chat: bool) -> list[Said]:
    """A JSONL file's prompts. Of messages, the assistant's last one is left out: it is to be answered.

    Raises HeliostatError with file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HeliostatError(f"{path} cannot be read: {error}") from error
    rows = [_said(f"{path}:{n}", line, chat) for n, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise HeliostatError(f"{path} is empty; it needs a JSON object per line")
    return rows


def _said(place: str, line: str, chat: bool) -> Said:
    try:
        row = _Row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise HeliostatError(f"{place}: {where + ': ' if where else ''}{first['msg']}") from error
    messages = row.messages or ()
    if messages and messages[-1].get("role") == "assistant":
        messages = messages[:-1]
    if messages and chat:
        return messages
    if messages:
        raise HeliostatError(f"{place}: messages are for --api chat; completions need a prompt")
    if row.prompt is None:
        raise HeliostatError(f'{place}: needs {{"prompt": text}} or {{"messages": [...]}}')
    return row.prompt


def from_dataset(rows: Sequence[Said], model_of: Chooser, first: int = 0) -> Iterator[Session]:
    """In the file's order from the row of that number on, and again from its beginning."""
    said = itertools.islice(itertools.cycle(rows), first % len(rows), None)
    return ((Planned(model_of(number), each),) for number, each in enumerate(said))
