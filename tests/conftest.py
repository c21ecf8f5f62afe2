"""Options and fixtures that all tests share, among them a real browser for the live page."""

import ast
import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from docs.site.blocks import shown_by, snippets
from docs.site.running import PAGES_URL

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytest_plugins = ("openai_server",)

CHROMIUM_ARGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

WITHIN_MS = 30_000

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".venv" / "tools" / "usr" / "bin"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would every command that a test stops with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster-url",
        default=None,
        help="run the end-to-end tests against this running cluster of their spec (tests/e2e/*.yaml)",
    )


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """A program that `scripts/install-tools` brings; without it the test is skipped, but fails in CI."""

    def find(name: str) -> str:
        path = shutil.which(name, path=TOOLS) or shutil.which(name)
        if path is None:
            reason = f"{name} is missing: scripts/install-tools brings it"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
        return path

    return find


@pytest.fixture(scope="session")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`heliostat-client`, built from this checkout."""
    # Imported here: only these tests need it.
    from hatchling.builders.wheel import WheelBuilder

    folder = str(tmp_path_factory.mktemp("wheel"))
    (built,) = WheelBuilder(str(ROOT / "heliostat")).build(directory=folder, versions=["standard"])
    return Path(built)


@pytest.fixture(scope="session")
def client_alone(client_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the client, what it asks for, and no more."""
    python = tmp_path_factory.mktemp("alone") / "bin" / "python"
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    subprocess.run((uv, "venv", "--quiet", "--python", sys.executable, python.parents[1]), check=True)
    install = (uv, "pip", "install", "--quiet", "--python", python)
    install += ("--constraints", ROOT / "constraints.txt", client_wheel)
    # All of it lies in uv's cache where `scripts/install` has run; only where not is an index asked.
    index = ("--default-index", os.environ["PIP_INDEX_URL"]) if "PIP_INDEX_URL" in os.environ else ()
    for place in (("--offline",), index):
        done = subprocess.run([*install, *place], capture_output=True, text=True)
        if done.returncode == 0:
            return python
    reason = f"there is nothing to install from: {done.stderr}"
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


RunPage = Callable[[str, str], list[tuple[str, str]]]


@pytest.fixture(scope="session")
def run_page() -> RunPage:
    """Runs a page's Python from top to bottom, as in a notebook, with the quickstart at another address.

    Gives what each snippet printed, and the output that stands below it (empty where none does). Some calls
    block: a server in the test's own loop wants this in a thread.
    """

    def run(page: str, url: str) -> list[tuple[str, str]]:
        return asyncio.run(run_all(page, url))

    async def run_all(page: str, url: str) -> list[tuple[str, str]]:
        names: dict[str, object] = {}
        outputs = []
        for source, expected in snippets(page):
            source = source.replace(PAGES_URL, url)
            code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            printed = io.StringIO()
            with redirect_stdout(printed):
                if isinstance(waiting := eval(code, names), Awaitable):
                    await waiting
            outputs.append((printed.getvalue(), expected))
        return outputs

    return run


@pytest.fixture
def shown(request: pytest.FixtureRequest) -> str:
    """The text of the page's block whose mark names this test (`docs/site/blocks.py`)."""
    return shown_by(request.node.nodeid.partition("[")[0])


@dataclass
class Tab:
    """A tab of the browser, every address that it asked for, and what it complained of."""

    page: "Page"
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self._heard(message.type, message.text))

    async def until(self, condition: str) -> None:
        """Until a JavaScript function of no arguments gives what is true."""
        await self.page.wait_for_function(condition, timeout=WITHIN_MS)

    async def appears(self, selector: str) -> None:
        """Until such an element can be seen."""
        await self.page.wait_for_selector(selector, timeout=WITHIN_MS)

    async def text(self, selector: str) -> str:
        """Of the first such element, as the browser has it."""
        return await self.page.text_content(selector) or ""

    async def all(self, selector: str, read: str = "each.textContent") -> list[str]:
        """What a JavaScript expression gives for `each` such element."""
        found: list[str] = await self.page.eval_on_selector_all(selector, f"all => all.map((each) => {read})")
        return found

    async def answer_is(self, text: str) -> None:
        """Until the box to try a prompt shows that answer."""
        await self.until(f"() => document.querySelector('output').textContent === {json.dumps(text)}")

    def _heard(self, kind: str, text: str) -> None:
        # The browser itself notes every answer that is an error; what the page makes of it is looked at.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.complaints.append(text)


OpenTab = Callable[..., Awaitable[Tab]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> "AsyncIterator[Browser]":
    """Debian's, with a fresh profile. `scripts/install-tools` installs it."""
    path = shutil.which("chromium")
    if path is None and os.environ.get("CI") != "true":
        pytest.skip("chromium is not installed; scripts/install-tools installs it")
    assert path is not None, "scripts/install-tools installs chromium"
    # Imported here: only these tests need it.
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def open_tab(chromium: "Browser") -> AsyncIterator[OpenTab]:
    """Opens a tab in a context of its own, with `new_context`'s arguments; closes with the test.

    Fails if a tab complained: a script's error, or something that the page's policy forbids.
    """
    tabs = []
    async with AsyncExitStack() as stack:

        async def open_one(**context: object) -> Tab:
            opened = await stack.enter_async_context(await chromium.new_context(**context))  # type: ignore[arg-type]
            tabs.append(Tab(await opened.new_page()))
            return tabs[-1]

        yield open_one
    assert [complaint for tab in tabs for complaint in tab.complaints] == []
