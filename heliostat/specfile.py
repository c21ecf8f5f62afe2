"""From a YAML file to a `Spec`, or to all the reasons why not, each with its line and a remedy."""

import os
import re
from pathlib import Path

from pydantic import JsonValue, ValidationError

from heliostat.errors import SpecError
from heliostat.findings import did_you_mean, explain, nearest, show
from heliostat.role import Role
from heliostat.spec import Spec
from heliostat.yamllines import Document, KeyPath, Problem, parse_yaml

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def load_spec(path: Path) -> Spec:
    """The spec in `path`; directories in it come out absolute, hub names as they are.

    Raises SpecError with every finding at once, in the order of the file.
    """
    document = parse_yaml(_read_text(path))
    spec, problems = _build(document, path.parent)
    if spec is None or problems:
        raise SpecError(str(path), tuple(_finding(p) for p in sorted(problems, key=lambda p: p.line)))
    return spec


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise SpecError(str(path), (f"cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SpecError(str(path), (f"{line}: not UTF-8 text; save it as UTF-8",)) from error


def _build(document: Document, folder: Path) -> tuple[Spec | None, list[Problem]]:
    root = document.value
    if not isinstance(root, dict):
        wanted = "a spec holds `family`, `prefill`, `decode` and `models`"
        return None, document.problems or [Problem(1, (), f"{wanted}, found {show(root)}")]
    problems = document.problems + _missing_pools(document, root) + _resolve_weights(document, root, folder)
    problems += _missing_adapters(document, root) + _resolve_calibrations(document, root, folder)
    try:
        return Spec.model_validate(root), problems
    except ValidationError as error:
        placed = {problem.path for problem in problems}  # one finding per key: the first says more
        return None, problems + [p for p in explain(error, document) if p.path not in placed]


def _finding(problem: Problem) -> str:
    place = f"{'.'.join(map(str, problem.path))}: " if problem.path else ""
    return f"{problem.line}: {place}{problem.message}"


# The checks below see the file before pydantic does, so they skip what has another shape: pydantic says it.


def _section(value: JsonValue, key: str) -> dict[str, JsonValue]:
    below = value.get(key) if isinstance(value, dict) else None
    return below if isinstance(below, dict) else {}


def _missing_pools(document: Document, root: JsonValue) -> list[Problem]:
    """Models that name a pool which does not exist."""
    problems = []
    models = _section(root, "models")
    for name in models:
        for role in Role:
            pool = _section(models, name).get(role.value)
            pools = _section(root, role.value)
            if isinstance(pool, str) and pools and pool not in pools:
                path = ("models", name, role.value)
                hint = did_you_mean(pool, pools, f"{role} pools")
                problems.append(Problem(document.line(path), path, f"no {role} pool {show(pool)}; {hint}"))
    return problems


def _missing_adapters(document: Document, root: JsonValue) -> list[Problem]:
    """Models that name an adapter which their pool does not list."""
    problems = []
    models = _section(root, "models")
    for name in models:
        for role in Role:
            model = _section(models, name)
            adapter, pool = model.get(f"{role}_adapter"), model.get(role.value)
            if not isinstance(adapter, str) or not isinstance(pool, str):
                continue
            section = _section(_section(root, role.value), pool)
            adapters = _section(section, "adapters")
            if section and adapter not in adapters:
                path = ("models", name, f"{role}_adapter")
                hint = did_you_mean(adapter, adapters, "adapters") if adapters else "list it under `adapters`"
                message = f"{role}.{pool} has no adapter {show(adapter)}; {hint}"
                problems.append(Problem(document.line(path), path, message))
    return problems


def _resolve_weights(document: Document, root: JsonValue, folder: Path) -> list[Problem]:
    """Put absolute directories in the place of local weights; returns what is wrong with any of them."""
    holders: list[tuple[dict[str, JsonValue], KeyPath]] = [(_section(root, "family"), ("family", "base"))]
    for role in Role:
        pools = _section(root, role.value)
        for name in pools:
            pool = _section(pools, name)
            holders.append((pool, (role.value, name, "weights")))
            adapters = _section(pool, "adapters")
            holders += [(adapters, (role.value, name, "adapters", adapter)) for adapter in adapters]
    problems = []
    for section, path in holders:
        key = str(path[-1])
        value = section.get(key)
        if not isinstance(value, str):
            continue
        directory = _local_directory(value, folder)
        section[key] = directory or value
        adapter = "adapters" in path[2:3]
        if complaint := _complaint(value, Path(directory) if directory else None, adapter):
            problems.append(Problem(document.line(path), path, complaint))
    return problems


def _resolve_calibrations(document: Document, root: JsonValue, folder: Path) -> list[Problem]:
    """Put absolute paths in the place of calibration files; returns which of them do not exist."""
    problems = []
    for role in Role:
        pools = _section(root, role.value)
        for name in pools:
            section = _section(_section(pools, name), "sim")
            value = section.get("calibration")
            if not isinstance(value, str):
                continue
            file = os.path.abspath(folder / os.path.expanduser(value))
            section["calibration"] = file
            if not os.path.isfile(file):
                path = (role.value, name, "sim", "calibration")
                message = f"{show(value)}: no file {file}; `heliostat calibrate` makes one"
                problems.append(Problem(document.line(path), path, message))
    return problems


def _local_directory(value: str, folder: Path) -> str | None:
    """The absolute directory that `value` means, or None when it means the hub."""
    first = value.split("/")[0]
    marked = value.startswith((".", "/", "~"))
    if not marked and not (first and (folder / first).is_dir()):
        return None
    return os.path.abspath(folder / os.path.expanduser(value))


def _complaint(value: str, directory: Path | None, adapter: bool = False) -> str | None:
    """What is wrong with a `weights` or an adapter, and what to do about it."""
    if directory is None:
        if _HUB_NAME.fullmatch(value):
            return None
        return f"{show(value)} is no directory beside this file and no hub name; write `org/model` or `./…`"
    if not directory.is_dir():
        near = nearest(directory.name, (entry.name for entry in directory.parent.glob("*/")))
        remedy = f"did you mean `{near}`?" if near else "correct the path (it is relative to this file)"
        return f"{show(value)}: no directory {directory}; {remedy}"
    if adapter and not (directory / "adapter_config.json").is_file():
        return f"{show(value)}: {directory} has no adapter_config.json; name a LoRA adapter as PEFT writes it"
    if not adapter and not (directory / "config.json").is_file():
        return f"{show(value)}: {directory} has no config.json; name a Hugging Face checkpoint"
    return None
