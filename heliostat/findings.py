"""What pydantic says about a spec, in an operator's words: the problem, the value, the remedy."""

import difflib
import json
import re
from collections.abc import Iterable
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from heliostat.spec import Spec
from heliostat.yamllines import Document, KeyPath, Problem

_NAME_RULE = (
    "is not a name; use lower-case letters, digits, `.`, `_` and `-`, a letter or digit at both ends, "
    "and at most 63 characters"
)


def explain(error: ValidationError, document: Document) -> list[Problem]:
    """One problem per error, at the line of the key that is wrong."""
    return [_explain(details, document) for details in error.errors(include_url=False)]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that somebody who wrote `word` may have meant."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def did_you_mean(word: str, known: Iterable[str], what: str) -> str:
    """The remedy for a wrong word: all the known ones, and which of them is near."""
    words = list(known)
    near = nearest(word, words)
    listed = f"{what}: {', '.join(words) or 'none'}"
    return f"did you mean `{near}`? ({listed})" if near else listed


def _explain(details: ErrorDetails, document: Document) -> Problem:
    path: KeyPath = details["loc"]
    if path[-1:] == ("[key]",):  # pydantic's mark for a wrong name, as against a wrong value under it
        path = path[:-1]
    found = document.known_part(path)
    message = _message(details, path)
    # A missing key is named although it is not in the file; the line is that of what should hold it.
    return Problem(document.line(found), path if details["type"] == "missing" else found, message)


def _message(details: ErrorDetails, path: KeyPath) -> str:
    kind, value = details["type"], details["input"]
    key = str(path[-1]) if path else ""
    if kind == "missing":
        meaning = _model_at(path[:-1]).model_fields[key].description
        return f"missing; add it: {meaning}" if meaning else "missing; add it"
    if kind == "extra_forbidden":
        known = _model_at(path[:-1]).model_fields
        return f"unknown key; {did_you_mean(key, known, 'known keys')}"
    if kind == "value_error":
        return str(details["ctx"]["error"])
    if kind == "string_pattern_mismatch":
        return f"{show(value)} {_NAME_RULE}"
    if kind == "too_short":
        return "is empty; it needs at least one entry"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", details["ctx"]["expected"])
        return f"{show(value)} is not a choice; {did_you_mean(str(value), choices, 'choose from')}"
    if kind in ("model_type", "dict_type"):
        wanted = "a number or {min: …, max: …}" if key == "replicas" else "keys with values below it"
        return f"should be {wanted}, found {show(value)}"
    quoted = "; put it in quotes" if kind == "string_type" and isinstance(value, bool | int | float) else ""
    return f"{details['msg'].removeprefix('Input ')}, found {show(value)}{quoted}"


def show(value: object) -> str:
    """A value as the file would give it, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _model_at(path: KeyPath) -> type[BaseModel]:
    """What stands at `path` in a spec, found by its types; the spec itself where nothing of ours does."""
    kind: type[BaseModel] = Spec
    inside = False  # a section of named entries, such as `models`
    for key in path:
        if inside:
            inside = False
            continue
        field = kind.model_fields.get(str(key))
        models = [part for part in _parts(field.annotation) if _is_model(part)] if field else []
        if not models:
            return Spec
        kind, inside = models[0], get_origin(field.annotation) is dict if field else False
    return kind


def _parts(annotation: object) -> list[type]:
    """A type, and what it is made of: `dict[str, Pool]`, `Connector | None`."""
    inner = [part for argument in get_args(annotation) for part in _parts(argument)]
    return [annotation, *inner] if isinstance(annotation, type) else inner


def _is_model(kind: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
