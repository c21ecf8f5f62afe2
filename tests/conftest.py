"""Options and fixtures that all tests share."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / ".venv" / "tools" / "usr" / "bin"


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
