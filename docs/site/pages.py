"""Which files of the repository are on the site."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from posixpath import normpath

from docs.site.parts import ROOT

TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages beside those in docs/."""

_LINK = re.compile(r"\]\(([^)\s#]+)[^)\s]*\)")


@cache
def files() -> tuple[str, ...]:
    """By their paths in the repository: README.md and the like, docs/, and whatever these link to."""
    waiting = [*TOP, *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))]
    found: dict[str, None] = {}
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting += linked(name)
    return tuple(found)


def pages() -> tuple[str, ...]:
    """Those that are pages."""
    return tuple(name for name in files() if name.endswith(".md"))


def linked(name: str) -> Iterator[str]:
    """The files of the repository that a page links to; nothing for what is no page."""
    if not name.endswith(".md"):
        return
    for target in _LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        path = normpath(f"{Path(name).parent}/{target}")
        if "://" not in target and (ROOT / path).is_file():
            yield path
