"""Keys inside of a parameter's value. vLLM takes unknown ones here as well, and says nothing."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from pydantic import BaseModel

from heliostat.errors import InvalidRequestError
from heliostat.findings import nearest

ENGINES_OWN = frozenset(("disable_additional_properties", "disable_any_whitespace", "whitespace_pattern"))
"""In `structured_outputs`: vLLM's engines go by their own settings instead."""


def check_inner_keys(body: BaseModel, raw: Mapping[str, object]) -> None:
    """Refuse what nobody knows in a value of the body. `raw` is what it was made from.

    Messages are not looked into: libraries send back what answers held, and templates may read any of it.
    Raises InvalidRequestError.
    """
    for name, value in body:
        if isinstance(value, BaseModel):
            _check_model(name, value)
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            for number, each in enumerate(value):
                _check_model(f"{name}.{number}", each)
        elif is_dataclass(value):
            given = raw[name]
            assert isinstance(given, Mapping)
            _check_given(name, given, frozenset(field.name for field in fields(value) if field.init))
    for name, value in _mapping(raw.get("structured_outputs")).items():
        if name in ENGINES_OWN and value:
            raise InvalidRequestError(
                f"`structured_outputs.{name}` is not supported: it is set for a whole pool, by "
                "`engine_args: {structured_outputs_config: …}`"
            )


def unknown(name: str, known: frozenset[str], place: str = "") -> InvalidRequestError:
    """`name` is none of `known`, which stand at `place`."""
    near = nearest(name, known)
    hint = f"; did you mean `{near}`?" if near else ""
    return InvalidRequestError(f"`{place}{name}` is not a parameter of this endpoint{hint}")


def _check_model(place: str, value: BaseModel) -> None:
    kind = type(value)
    known = frozenset(field.alias or name for name, field in kind.model_fields.items())
    _check_given(place, value.model_extra or {}, known)
    for name, each in value:
        if isinstance(each, BaseModel):
            _check_model(f"{place}.{name}", each)


def _check_given(place: str, given: Mapping[str, object], known: frozenset[str]) -> None:
    for name in given:
        if name not in known:
            raise unknown(name, known, f"{place}.")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
