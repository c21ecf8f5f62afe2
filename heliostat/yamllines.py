"""YAML as plain JSON values, plus the line of every key, so that a finding can say where it is.

What PyYAML's own SafeLoader does differently: here a key given twice is an error (there the last one
wins), keys are always text (`no:` names a pool `no`, not False) and dates stay text.
"""

from dataclasses import dataclass, field

import yaml
from pydantic import JsonValue

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of the file."""

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_TAG + kind for kind in ("null", "bool", "int", "float", "str")}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at one place of the file."""

    line: int
    path: KeyPath
    message: str


@dataclass(slots=True)
class Document:
    """A file's values; `lines` gives the line of each key and list item, `problems` what was left out."""

    value: JsonValue = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def known_part(self, path: KeyPath) -> KeyPath:
        """The longest beginning of `path` that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return path

    def line(self, path: KeyPath) -> int:
        return self.lines.get(self.known_part(path), 1)


class _Loader(yaml.SafeLoader):
    """A SafeLoader that leaves dates as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TAG + "timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Document:
    """The one document in `text`; what cannot be read ends up in its `problems`."""
    document = Document()
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is not None:
                document.value = _Walk(loader, document).value(root, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = " ".join(part for part in (error.context, error.problem) if part)
        document.problems.append(Problem(line, (), f"not valid YAML: {said}"))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.problems.append(Problem(line, (), f"not valid YAML: {error.reason}"))
    return document


class _Walk:
    """Turns the nodes of one document into values, and notes lines and problems on the way."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._open: list[yaml.Node] = []
        self._checked: set[yaml.Node] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> JsonValue:
        if node in self._open:
            self._problem(node, path, "an alias contains itself")
            return None
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, path)
            return self._scalar(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> JsonValue:
        if node not in self._checked:  # an alias leads here again, and merged keys then look like duplicates
            self._checked.add(node)
            self._check_keys(node, path)
            self._loader.flatten_mapping(node)  # merge keys: `<<: *defaults`
        values: dict[str, JsonValue] = {}
        for key, child in node.value:
            if isinstance(key, yaml.ScalarNode):
                below = (*path, key.value)
                self._document.lines[below] = key.start_mark.line + 1
                values[key.value] = self.value(child, below)
        return values

    def _check_keys(self, node: yaml.MappingNode, path: KeyPath) -> None:
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, path, "a key must be one word")
            elif first := first_lines.get(key.value):
                message = f"given twice, first in line {first}; rename one or drop it"
                self._problem(key, (*path, key.value), message)
            else:
                first_lines[key.value] = key.start_mark.line + 1

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> JsonValue:
        for index, child in enumerate(node.value):
            self._document.lines[(*path, index)] = child.start_mark.line + 1
        return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]

    def _scalar(self, node: yaml.Node, path: KeyPath) -> JsonValue:
        if node.tag not in _SCALAR_TAGS:
            self._problem(node, path, f"tag {node.tag} has no meaning here")
            return None
        try:
            value: JsonValue = self._loader.construct_object(node)
        except (ValueError, KeyError):  # an explicit tag on a value of another kind: `!!int many`
            self._problem(node, path, f"{node.value!r} is not {node.tag.removeprefix(_TAG)}")
            return None
        return value

    def _problem(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self._document.problems.append(Problem(node.start_mark.line + 1, path, message))
