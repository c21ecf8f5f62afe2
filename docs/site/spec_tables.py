"""The tables of docs/spec.md, from the models that read a spec: each key, its type, default and meaning."""

import json
import re
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.site.parts import table
from heliostat import spec
from heliostat.section import Section

HEAD = ("key", "type", "default", "meaning")
MAPPINGS: dict[object, str] = {str: "texts by name", float: "numbers by name"}
NUMBERS: dict[object, str] = {int: "integer", float: "number"}


def spec_table(name: str) -> str:
    """Of one section, by the name of its class. Raises KeyError where the spec has none of that name."""
    kind = vars(spec)[name]
    if not (isinstance(kind, type) and issubclass(kind, Section)):
        raise KeyError(name)
    return table(HEAD, [_row(key, field) for key, field in kind.model_fields.items()])


def _row(key: str, field: FieldInfo) -> tuple[str, ...]:
    return f"`{key}`", kind_of(field), _default(field), _meaning(field)


def kind_of(field: FieldInfo) -> str:
    """A field's type and limits, in words."""
    if field.annotation is str and any(hasattr(each, "pattern") for each in field.metadata):
        return "name"
    return _words(field.annotation, _bounds(field))


def _words(kind: object, bounds: str = "") -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:  # the spec's only one is a name with its pattern
        return "name"
    if origin in (Union, UnionType):
        (inner,) = (each for each in arguments if each is not NoneType)
        return f"{_words(inner, bounds)}, or `null`"
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin is dict:
        return _mapping(arguments[1])
    if kind is bool:
        return "`true`, `false`"
    if kind is spec.Replicas:
        return "integer, or `{min, max}`"
    if isinstance(kind, type) and issubclass(kind, Section):
        return "a section"
    return NUMBERS.get(kind, "text") + bounds


def _mapping(values: object) -> str:
    if isinstance(values, type) and issubclass(values, Section):
        return "sections by name"
    return MAPPINGS.get(values, "keys and values")


def _bounds(field: FieldInfo) -> str:
    least = next((each.ge for each in field.metadata if isinstance(each, annotated_types.Ge)), None)
    most = next((each.le for each in field.metadata if isinstance(each, annotated_types.Le)), None)
    above = next((each.gt for each in field.metadata if isinstance(each, annotated_types.Gt)), None)
    if above is not None:
        return f" above {above}"
    if least is None:
        return ""
    return f", {least} or more" if most is None else f", {least} to {most}"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, spec.Replicas):
        return f"`{value.min}`"
    if isinstance(value, Section):
        return "`{}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _meaning(field: FieldInfo) -> str:
    """The field's description; a page that it names becomes a link, as pages beside docs/spec.md see it."""
    return re.sub(r"docs/([\w/]+\.md)", r"[\1](\1)", field.description or "").replace(" null", " `null`")
