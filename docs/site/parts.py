"""Parts of pages that are made from code or from committed figures.

A page holds such a part between two comments, so that it reads as well on a Git host, which builds nothing:

    <!-- made: spec Family -->
    …
    <!-- /made -->

`python -m docs.site.write` writes it into the page, the site's build makes it again, and a test holds that
the two are equal.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from heliostat.errors import HeliostatError

ROOT = Path(__file__).resolve().parents[2]
"""The repository's."""

Maker = Callable[[str], str]
"""From the rest of a mark's line (`Family`) to Markdown. Raises KeyError where there is no such thing."""

_PART = re.compile(r"(<!-- made: (?P<maker>\w+) ?(?P<what>[^>]*?) -->\n).*?(<!-- /made -->)", re.DOTALL)


def fill(text: str, makers: Mapping[str, Maker], page: str) -> str:
    """The page's text with all such parts made anew. Raises HeliostatError where a mark names nothing."""

    def made(match: re.Match[str]) -> str:
        try:
            part = makers[match["maker"]](match["what"])
        except KeyError as error:
            raise HeliostatError(
                f"{page}: nothing makes `{match['maker']} {match['what']}`: {error}"
            ) from None
        return f"{match[1]}\n{part}\n\n{match[4]}"

    return _PART.sub(made, text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a `|` in a cell would end it, so it is written as its entity."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
