"""Shell commands as pages have them, read by the parsers of the programs that they call; none is run."""

import argparse
import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

from docs.site.parts import ROOT

Words = list[str]

ENVIRONMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")


def commands(text: str) -> Iterator[Words]:
    """Each command of a block, as words, without comments and without what it sets in its environment."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and ENVIRONMENT.match(words[0]):
            words = words[1:]
        if words:
            yield words


def problem(words: Words) -> str | None:
    """What its program's parser says against a command; None if nothing."""
    if re.fullmatch(r"\.venv/integrations(-\w+)?/bin/python", words[0]):
        return None if (ROOT / words[1]).is_file() else f"{words[1]} does not exist"  # its own environment's
    name = words[0].removeprefix(".venv/bin/")
    if name.startswith("scripts/"):
        return _script(words)
    reader = READERS.get(name)
    return f"no reader for `{name}`: add one, or mark the block" if reader is None else reader(words[1:])


def _heliostat(words: Words) -> str | None:
    from cluster.cli import parser

    return _parsed(parser(), words)


def _python(words: Words) -> str | None:
    """`-m MODULE …` or `FILE …`: read by its `parser()` if it has one, else held against its `--help`."""
    if words[:2] == ["-m", "pytest"]:
        return _pytest(words[2:])
    module = words[1] if words[0] == "-m" else ""
    rest = words[2:] if module else words[1:]
    if module and (own := getattr(importlib.import_module(module), "parser", None)):
        return _parsed(own(), rest)
    file = ROOT / (f"{module.replace('.', '/')}.py" if module else words[0])
    if not file.is_file():
        return f"{file} does not exist"
    options = [word for word in rest if word.startswith("--")]
    command = (sys.executable, *(("-m", module) if module else (str(file),)), "--help")
    return _in_help(command, options) if options else None


def _pytest(words: Words) -> str | None:
    """Read by pytest, which fails on an unknown option; collecting would take long."""
    return _in_help((sys.executable, "-m", "pytest", "--help"), [w for w in words if w.startswith("--")])


def _script(words: Words) -> str | None:
    file = ROOT / words[0]
    if not os.access(file, os.X_OK):
        return f"{words[0]} is no program"
    unknown = [word for word in words[1:] if word not in file.read_text(encoding="utf-8")]
    return f"{words[0]} knows no {unknown}" if unknown else None


def _printf(words: Words) -> str | None:
    """It writes what the command behind it reads."""
    return problem(words[words.index("|") + 1 :]) if "|" in words else None


def _make(words: Words) -> str | None:
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stderr if done.returncode else None


def _ray(words: Words) -> str | None:
    """Ray's command line is click's. What `ray exec` runs elsewhere is a command of ours, and read as one."""
    import click
    from ray.scripts.scripts import cli

    command = cli.commands.get(words[0])
    if command is None:
        return f"ray has no command {words[0]}"
    try:
        command.make_context(words[0], list(words[1:]))
    except click.ClickException as error:
        return error.format_message()
    return problem(shlex.split(words[-1])) if words[0] == "exec" else None


def _curl(words: Words) -> str | None:
    return _in_help(("curl", "--help", "all"), [word for word in words if word.startswith("-")])


def _prometheus(words: Words) -> str | None:
    """`scripts/install-tools` brings it; where it is missing nothing is read."""
    place = shutil.which("prometheus", path=ROOT / ".venv" / "tools" / "usr" / "bin")
    return _in_help((place, "--help"), words) if place else None


def _parsed(parser: argparse.ArgumentParser, words: Words) -> str | None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(words)
        except SystemExit as end:  # 0 is `--help`
            return said.getvalue() if end.code else None
    return None


@cache
def _help(command: tuple[str, ...]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _in_help(command: tuple[str, ...], options: Words) -> str | None:
    told = _help(command)
    unknown = [option for option in options if option.partition("=")[0] not in told]
    return f"{command[-2]} knows no {unknown}" if unknown else None


READERS: dict[str, Callable[[Words], str | None]] = {
    "curl": _curl,
    "heliostat": _heliostat,
    "make": _make,
    "printf": _printf,
    "prometheus": _prometheus,
    "python": _python,
    "ray": _ray,
}
"""Who reads a command, by its first word."""
