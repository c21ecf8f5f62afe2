"""The code blocks of the pages, and what a test does with each of them.

Without a mark, the language says it:

    python    is run, with a small server in place of the cluster at http://127.0.0.1:8000
    yaml      is a spec, or a part of one, and is read as `heliostat plan` reads it
    bash      every command is read by its own program's parser

A mark is an HTML comment on the line before the block; it is needed for everything else:

    <!-- run -->              commands: are run; text that begins with `$ `: compared with what that prints
    <!-- output -->           text: what the block before prints; `…` stands for anything
    <!-- cluster -->          as without a mark, and once more against a cluster of real engines
    <!-- continues -->        python: runs after the python block before it, in the same program
    <!-- shown: TEST -->      the test of that name compares the block with what it shows
    <!-- not run: REASON -->  nothing is done with it

A page whose blocks a test of its own runs says so once: `<!-- python, text: run by TEST -->`. The marks of
blocks go before that.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

from docs.site.pages import pages
from docs.site.parts import ROOT

_BLOCK = re.compile(
    r"(?:^ *<!-- (?!/?made)(?P<mark>[^>]*?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>\S*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


_PAGE = re.compile(r"^<!-- (?P<languages>[a-z]+(?:, [a-z]+)*): run by (?P<test>\S+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of a page: where it begins, and its mark, as kind and rest (`shown` and `tests/…::test_…`)."""

    page: str
    line: int
    language: str
    text: str
    kind: str
    rest: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Those of one page, by its path in the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return tuple(_block(page, text, match) for match in _BLOCK.finditer(text))


def _block(page: str, text: str, match: re.Match[str]) -> Block:
    line = text.count("\n", 0, match.start("indent")) + 1
    kind, _, rest = (match["mark"] or "").partition(": ")
    for whole in _PAGE.finditer(text):
        if not kind and match["language"] in whole["languages"].split(", "):
            kind, rest = "run by", whole["test"]
    body = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
    return Block(page, line, match["language"], body, kind, rest)


def all_blocks() -> Iterator[Block]:
    """Those of all pages."""
    for page in pages():
        yield from blocks(page)


def shown_by(test: str) -> str:
    """The text of the one block whose mark names this test. Raises LookupError."""
    found = [block for block in all_blocks() if block.kind == "shown" and block.rest == test]
    if len(found) != 1:
        raise LookupError(f"{len(found)} blocks say `shown: {test}`")
    return found[0].text


def program(block: Block) -> str:
    """A python block with those that it continues."""
    before = [each for each in blocks(block.page) if each.line < block.line and each.language == "python"]
    return program(before[-1]) + block.text if block.kind == "continues" and before else block.text


def output_of(block: Block) -> str | None:
    """The text right behind it that says what it prints, if there is one."""
    later = [each for each in blocks(block.page) if each.line > block.line]
    return later[0].text if later and later[0].kind == "output" else None


def snippets(page: str) -> Iterator[tuple[str, str]]:
    """Each python block of a page, with the text right behind it, or with an empty one."""
    for block, behind in zip_longest(blocks(page), blocks(page)[1:]):
        if block.language == "python":
            yield block.text, behind.text if behind and behind.language == "text" else ""


def matches(expected: str, printed: str) -> bool:
    """Whether this was printed; `…` stands for anything, `#efu3nmul` for any replica."""
    pattern = re.escape("\n".join(line.rstrip() for line in expected.strip().splitlines()))
    pattern = re.sub(r"\\#[a-z0-9]{8}\b", r"\\#[a-z0-9]{8}", pattern.replace("…", ".*?"))
    text = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def path_of(test: str) -> tuple[Path, str]:
    """A test's file and name, of `tests/…::test_…`."""
    file, _, name = test.partition("::")
    return ROOT / file, name
