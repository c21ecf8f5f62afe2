"""What answers cost: of one answer, and of all that were asked over a context."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Self

from pydantic import BaseModel, ConfigDict

from heliostat import headers


class Usage(BaseModel):
    """Tokens of one answer.

    `cached_tokens` of the prompt's came from a prefix cache, `cross_model_tokens` of those because another
    model had brought them; computing the cached ones would have taken `saved_ms`. 0 where the server does not
    say.
    """

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cross_model_tokens: int = 0
    saved_ms: float = 0.0


class _Details(BaseModel):
    cached_tokens: int | None = None


class UsageBody(BaseModel):
    """OpenAI's `usage`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


def read_usage(body: UsageBody | None, answered: Mapping[str, str]) -> Usage:
    """From the body, and from the answer's headers, which say more."""
    body = body or UsageBody()
    details = body.prompt_tokens_details or _Details()
    cached = _figure(answered, headers.CACHED_TOKENS)
    return Usage(
        prompt_tokens=body.prompt_tokens or 0,
        output_tokens=body.completion_tokens or 0,
        cached_tokens=(details.cached_tokens or 0) if cached is None else int(cached),
        cross_model_tokens=int(_figure(answered, headers.CROSS_MODEL_TOKENS) or 0),
        saved_ms=_figure(answered, headers.SAVED_MS) or 0.0,
    )


def _figure(answered: Mapping[str, str], header: str) -> float | None:
    """None where the header is missing or no number: a figure is not worth an answer."""
    try:
        figure = float(answered.get(header, ""))
    except ValueError:
        return None
    return figure if isfinite(figure) else None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over requests that were answered; the words are those of `Usage`."""

    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cross_model_tokens: int = 0
    saved_ms: float = 0.0

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """Of one answer."""
        return cls(1, **usage.model_dump())

    def __add__(self, other: "Totals") -> "Totals":
        names = [field.name for field in fields(self)]
        return Totals(*(getattr(self, name) + getattr(other, name) for name in names))
