"""Facts about examples/integrations and its page: it shows what runs, and in which versions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.specfile import load_spec

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "integrations"
PAGE = (ROOT / "docs" / "integrations.md").read_text()
PROGRAMS = sorted(FOLDER.glob("with_*.py"))
PINS = sorted(FOLDER.glob("requirements*.txt"))
LOOPBACK_ONLY = ROOT / "tests" / "e2e" / "loopback_only"


def pinned(pins: Path) -> list[str]:
    return [line for line in pins.read_text().splitlines() if not line.startswith("#")]


def test_there_are_programs_and_pins() -> None:
    assert len(PROGRAMS) == 6
    assert len(PINS) == 2


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_the_page_shows_the_program(program: Path) -> None:
    (shown,) = re.findall(r"# docs: start\n(.*?)# docs: end", program.read_text(), re.DOTALL)
    assert f"```python\n{shown.rstrip()}\n```" in PAGE
    assert f"`examples/integrations/{program.name}`" in PAGE


def test_the_page_speaks_of_the_tool_parser_that_the_quickstart_has() -> None:
    """Of what it does with `strict` and with forced calls, tests/router/frontend/test_tools.py."""
    parser = load_spec(ROOT / "examples" / "quickstart" / "cluster.yaml").router.tool_parser
    assert f"`{parser}`, as the quickstart has it" in PAGE


def test_the_page_names_the_pinned_versions() -> None:
    rows = re.findall(r"^\| \[.+?\| `([\w-]+)(?:\[\w+\])?` \| ([\d.]+) \|", PAGE, re.MULTILINE)
    assert len(rows) == len(PROGRAMS)
    assert {f"{package}=={version}" for package, version in rows} <= {
        each for pins in PINS for each in pinned(pins)
    }


@pytest.mark.parametrize("pins", PINS, ids=lambda path: path.stem)
def test_every_version_is_pinned(pins: Path) -> None:
    assert [line for line in pinned(pins) if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("socket.getaddrinfo('192.0.2.1', 443)", "192.0.2.1\n"),
        ("socket.getaddrinfo('127.0.0.1', 443)", ""),
        ("socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))", "192.0.2.1\n"),
    ],
)
def test_whoever_is_asked_besides_this_host_is_written_down(code: str, asked: str, tmp_path: Path) -> None:
    """As the end-to-end test of the programs needs it; nothing is sent to that address, which nobody has."""
    file = tmp_path / "asked"
    file.touch()
    subprocess.run(
        [sys.executable, "-c", f"import contextlib, socket\nwith contextlib.suppress(OSError): {code}"],
        env={"PYTHONPATH": str(LOOPBACK_ONLY), "ASKED": str(file)},
        check=True,
        timeout=30,
    )
    assert file.read_text() == asked
