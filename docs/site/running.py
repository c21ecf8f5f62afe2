"""Runs what pages say, with another server in place of the cluster at http://127.0.0.1:8000."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from docs.site.parts import ROOT

PAGES_URL = "http://127.0.0.1:8000"
"""Where the pages have their cluster."""

COLUMNS = 100
"""The width of the pages' terminal."""

ASK_A_CLUSTER = "status | models | chat | bench"
"""Commands of `heliostat` that find the cluster at `PAGES_URL` when they are told no other."""

PROGRAM = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
if inspect.iscoroutine(waits := eval(code, {"__name__": "__main__"})):
    asyncio.run(waits)
"""
"""Runs the program on its input, which may wait (`await`) outside of a function, as in a notebook."""


@dataclass(frozen=True)
class Place:
    """A folder that sees the repository's files, and keeps what is written for itself.

    `heliostat` and `python` are those of this process, by themselves and in `.venv/bin`; `url` stands for the
    pages' cluster. A run returns what was printed, and raises AssertionError with all of it on a failure.
    """

    folder: Path
    url: str

    def prepare(self) -> "Place":
        """Make it, once."""
        for file in ROOT.iterdir():
            if file.name not in (".venv", ".git", "build"):
                (self.folder / file.name).symlink_to(file)
        self._programs.mkdir(parents=True)
        self._program("python", f'exec {sys.executable} "$@"')
        self._program(
            "heliostat",
            'case "$*" in *--url*) ;; *)\n'
            f'case "$1" in {ASK_A_CLUSTER}) set -- "$@" --url {self.url};; esac;; esac\n'
            f'exec {sys.executable} -m cluster.cli "$@"',
        )
        return self

    def shell(self, text: str) -> str:
        """Commands, by bash, which stops at the first that fails."""
        return self._run(["bash", "-euo", "pipefail", "-c", text.replace(PAGES_URL, self.url)], None)

    def python(self, text: str) -> str:
        """A program."""
        return self._run([sys.executable, "-c", PROGRAM], text.replace(PAGES_URL, self.url))

    @property
    def _programs(self) -> Path:
        return self.folder / ".venv" / "bin"

    def _program(self, name: str, text: str) -> None:
        file = self._programs / name
        file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        file.chmod(0o755)

    def _run(self, command: list[str], text: str | None) -> str:
        environment = {
            **os.environ,
            "COLUMNS": str(COLUMNS),
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            command, input=text, cwd=self.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
