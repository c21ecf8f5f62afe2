"""The site is built as `scripts/docs` builds it, and asks nobody but its own host for anything."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docs.site.pages import files, pages
from docs.site.parts import ROOT

if TYPE_CHECKING:  # tests cannot import a conftest in importlib mode
    from tests.conftest import OpenTab

BROKEN = """
def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri == "README.md":
        return markdown + "\\n[page](docs/nowhere.md), [place](docs/spec.md#nowhere), [file](nowhere.py)\\n"
"""


def build(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", *options],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build("--site-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def html(page: str) -> str:
    """A page's place on the site."""
    return page.replace("README.md", "index.md").removesuffix(".md") + ".html"


def test_every_page_is_there_and_every_file_that_one_links_to(site: Path) -> None:
    assert len(pages()) > 25
    assert [page for page in pages() if not (site / html(page)).is_file()] == []
    assert [file for file in files() if not file.endswith(".md") and not (site / file).is_file()] == []


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^" >]+)', text)
        loaded += re.findall(r'<link[^>]* href="?([^" >]+)', text)
        assert [address for address in loaded if "//" in address] == [], page


def test_the_reference_has_what_the_docstrings_say(site: Path) -> None:
    assert (
        "A limit of the model, or what a pool can take, is reached"
        in (site / html("docs/reference/errors.md")).read_text()
    )
    client = (site / html("docs/reference/client.md")).read_text()
    assert all(f'id="heliostat.client.{name}"' in client for name in ("Client", "AsyncClient.chat", "Hints"))


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT}/mkdocs.yml\ndocs_dir: {ROOT}/docs\nsite_dir: {tmp_path}/site\n"
        f"hooks: [{ROOT}/docs/site/hooks.py, {tmp_path}/broken.py]\n"
        "plugins: {autorefs: {}, mkdocstrings: {}}\n"
    )
    done = build("--config-file", str(config))
    assert done.returncode != 0
    said = done.stderr
    assert all(target in said for target in ("docs/nowhere.md", "docs/spec.md#nowhere", "nowhere.py")), said


@pytest.mark.asyncio(loop_scope="module")
async def test_the_pages_open_in_a_browser_and_can_be_searched(url: str, open_tab: "OpenTab") -> None:
    tab = await open_tab()
    await tab.page.goto(f"{url}/index.html")
    await tab.page.fill("input.md-search__input", "ticket")
    await tab.appears(".md-search-result__item")
    await tab.page.goto(f"{url}/docs/concepts.html")
    shown = await tab.all("article img", "each.naturalWidth")
    assert len(shown) == 5
    assert all(shown), "every picture was loaded"
    assert [asked for asked in tab.asked if not asked.startswith((url, "data:", "blob:"))] == []
