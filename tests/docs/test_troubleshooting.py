"""The messages on the page of troubleshooting are those of the code."""

import ast
import re
from functools import cache
from itertools import pairwise

import pytest

from docs.site.parts import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
FOLDERS = ("cluster", "deployments", "finetune", "heliostat", "kvtransfer", "router")
ELSEWHERE = ("No space left on device", "torch==…+cpu", "import transformers", ".venv", "/dev/shm/heliostat")
"""What is not ours: the system's words, and names."""


@cache
def texts() -> tuple[str, ...]:
    """Every text in the code; `…` stands for what a run fills in."""
    files = (file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))
    return tuple(text for file in files for text in _texts(ast.parse(file.read_text())))


def _texts(tree: ast.AST) -> list[str]:
    """Of f-strings the whole, of others each."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def messages() -> list[str]:
    """What stands in backticks in the columns of what is seen."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    seen = [row[1] if len(row) == 4 else row[0] for row in rows]
    quoted = [text for cell in seen for text in re.findall(r"`([^`]+)`", cell)]
    return [text for text in quoted if not text.startswith(ELSEWHERE) and " " in text.replace("…", "")]


def is_said(message: str) -> bool:
    """Whether some text of the code has all parts of the message, in this order."""
    parts = [part for part in message.split("…") if part.strip(" :;,")]
    return any(_in_order(parts, text) for text in texts())


def _in_order(parts: list[str], text: str) -> bool:
    places = [text.find(part) for part in parts]
    return min(places, default=-1) >= 0 and all(one < other for one, other in pairwise(places))


def test_there_are_messages() -> None:
    assert len(messages()) > 30
    assert not is_said("no such thing is said …")


@pytest.mark.parametrize("message", messages())
def test_a_message_is_one_of_the_codes(message: str) -> None:
    assert is_said(message)
