"""Options that all tests share."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster-url",
        default=None,
        help="run the end-to-end tests against this running cluster of their spec (tests/e2e/*.yaml)",
    )
