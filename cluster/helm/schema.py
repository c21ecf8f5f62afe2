"""`values.schema.json` from the pydantic models, in a form in which Helm's messages name the key.

Helm's validator says of an `anyOf` only that no branch fits. So a nullable value becomes one type with two
names, and a number of replicas one schema for both of its forms.
"""

from typing import TypeAlias

from pydantic import JsonValue

from cluster.helm.values import Values
from heliostat.spec import Replicas

Schema: TypeAlias = dict[str, JsonValue]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NULL: Schema = {"type": "null"}


def values_schema() -> Schema:
    """The schema of the chart's values: strict, so that a typing error is refused and named."""
    schema = _readable(Values.model_json_schema(by_alias=True))
    assert isinstance(schema, dict)
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    replicas = definitions[Replicas.__name__]
    assert isinstance(replicas, dict)
    replicas |= {"type": ["integer", "object"], "minimum": 1}
    return {"$schema": DIALECT, **schema}


def _readable(node: JsonValue, names: bool = False) -> JsonValue:
    """A copy with simpler words for the same. `names`: the keys of `node` are names, not keywords."""
    if isinstance(node, list):
        return [_readable(item) for item in node]
    if not isinstance(node, dict):
        return node
    if not names:
        node = _one_type(_named_entries({k: v for k, v in node.items() if k not in ("title", "default")}))
    return {
        key: _readable(value, key in ("properties", "$defs") and not names) for key, value in node.items()
    }


def _named_entries(node: Schema) -> Schema:
    """Entries whose names follow a pattern; pydantic would let others through unseen."""
    patterns = node.get("patternProperties")
    if not isinstance(patterns, dict):
        return node
    (pattern, entry), *more = patterns.items()
    assert not more, patterns
    rest = {key: value for key, value in node.items() if key != "patternProperties"}
    return rest | {"propertyNames": {"pattern": pattern}, "additionalProperties": entry}


def _one_type(node: Schema) -> Schema:
    """`anyOf` a type and null as one type with two names, or as a condition where it is a section."""
    branches = node.get("anyOf")
    if not isinstance(branches, list) or NULL not in branches:
        return node
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    branch, *more = [branch for branch in branches if branch != NULL]
    assert not more and isinstance(branch, dict), node
    if "$ref" in branch:
        return rest | {"if": NULL, "else": branch}
    if "enum" in branch:
        assert isinstance(branch["enum"], list)
        branch = {**branch, "enum": [*branch["enum"], None]}
    kind = branch.get("type")
    # A pattern or a bound says nothing of null, so the rest of the branch may stand beside both.
    return rest | branch | {"type": [kind, "null"]}
