"""The programs of examples/integrations, each with the real framework, against the quickstart's models.

They print what docs/integrations.md says, over one session, and talk to nobody else.
"""

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "integrations.md"
PROGRAMS = {
    "with_openai": "integrations",
    "with_langchain": "integrations",
    "with_llamaindex": "integrations-llamaindex",
    "with_openai_agents": "integrations",
    "with_pydantic_ai": "integrations",
    "with_dspy": "integrations",
}
"""And the environment in .venv that has its framework."""

SESSION, EXPECTED = "x-heliostat-session", "x-heliostat-expected-tokens"
RUN_S = 120


def printed(program: str) -> str:
    """What the page says that it prints: its own section, or the page's first output."""
    page = PAGE.read_text()
    *_, section = (each for each in page.split("\n## ") if f"integrations/{program}.py" in each)
    return (
        re.findall(r"```text\n(.*?)```", section, re.DOTALL)
        or re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    )[0]


class Relay:
    """A small HTTP server before the cluster: passes requests on, and keeps their headers."""

    def __init__(self, cluster_url: str) -> None:
        self.headers: list[httpx.Headers] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                relay.headers.append(httpx.Headers(self.headers.items()))
                body = self.rfile.read(int(self.headers["content-length"]))
                passed = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                with httpx.stream(
                    "POST", cluster_url + self.path, content=body, headers=passed, timeout=60
                ) as got:
                    self.send_response(got.status_code)
                    self.send_header("content-type", got.headers["content-type"])
                    self.end_headers()
                    for piece in got.iter_bytes():
                        self.wfile.write(piece)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def relay(cluster) -> Iterator[Relay]:
    relay = Relay(cluster.url)
    yield relay
    relay.close()


@pytest.fixture(scope="session")
def python_of() -> Callable[[str], Path]:
    """The interpreter of such an environment; without it the test is skipped, but fails in CI."""

    def find(environment: str) -> Path:
        python = ROOT / ".venv" / environment / "bin" / "python"
        if not python.exists():
            reason = f".venv/{environment} is missing: scripts/install-integrations brings it"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
        return python

    return find


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_what_its_page_says(
    program: str, python_of: Callable[[str], Path], relay: Relay, tmp_path: Path
) -> None:
    python = python_of(PROGRAMS[program])
    home, asked = tmp_path / "home", tmp_path / "asked"
    home.mkdir()
    asked.touch()
    done = subprocess.run(
        [python, ROOT / "examples" / "integrations" / f"{program}.py", "--base-url", f"{relay.url}/v1"],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parent / "loopback_only"),
            "ASKED": str(asked),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == printed(program)
    assert asked.read_text() == "", "it asks the cluster, and nobody else"
    assert list(home.iterdir()) == [], "it leaves nothing behind"

    (session,) = {headers.get(SESSION) for headers in relay.headers}
    assert session, "all that is asked over one context is of one session"
    assert sum(headers.get(EXPECTED) == "16" for headers in relay.headers) >= 4, (
        "one hint for each specialist"
    )
