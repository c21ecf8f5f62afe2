"""What mkdocs does differently here: the site has the layout of the repository.

So a link between pages, to README.md or to a source file is the same on the site and on a Git host, and a
page is where its file is. Pages are README.md, CONTRIBUTING.md, CHANGELOG.md and what lies in docs/, with
their made parts made anew; whatever else a page links to, in the repository, comes along as it is.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.site.parts import ROOT, fill
from docs.site.write import MAKERS

TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
STYLE = "docs/site/site.css"

_LINK = re.compile(r"\]\(([^)\s#]+)[^)\s]*\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The repository's pages, and what they link to, instead of what lies in docs/."""
    site = Files([file for file in files if file.src_dir != config.docs_dir])  # the theme's
    pages = (str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))
    waiting = [*TOP, *pages, STYLE]
    while waiting:
        name = waiting.pop()
        if site.get_file_from_path(name) is None:
            file = File.generated(config, name, abs_src_path=str(ROOT / name))
            site.append(file)
            waiting += linked(name)
    return site


def linked(name: str) -> Iterator[str]:
    """The files of the repository that a page links to; nothing for what is no page."""
    if not name.endswith(".md"):
        return
    for target in _LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        path = normpath(f"{Path(name).parent}/{target}")
        if "://" not in target and (ROOT / path).is_file():
            yield path


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's text with what is made from code and figures made anew."""
    return fill(markdown, MAKERS, page.file.src_uri)
