"""Figures that pages have typed in their tables are those of the committed results that they name."""

import json
import re
from pathlib import Path

import pytest

from docs.site.parts import ROOT

PAGES = ("autoscaling", "benchmarks", "calibration", "modules", "results/README", "tracing")
RESULTS = ROOT / "benchmarks" / "results"
FORMS = (1.0, 100.0, 0.001)
"""A figure may stand there as it is, in percent, or in seconds for milliseconds."""

ROW = r"^\|.*$(?!\n\| ---)"
"""Of a table, but for its head."""

DIGITS = 3
"""Shorter ones may be anything."""


def figures(file: Path) -> list[float]:
    """All of a results file; of a spread, what stands behind ±: its half."""
    found: list[float] = []

    def walk(part: object, form: float = 1.0) -> None:
        if isinstance(part, dict):
            for name, each in part.items():
                walk(each, 0.5 if name.endswith("(spread)") else form)
        elif isinstance(part, list):
            for each in part:
                walk(each, form)
        elif isinstance(part, int | float) and not isinstance(part, bool):
            found.append(part * form)

    walk(json.loads(file.read_text()))
    return found


def tables(page: str) -> list[tuple[list[float], str]]:
    """Rows of a page, and the figures of the results that its section, or one before, names last."""
    rows, known = [], list[float]()
    for section in re.split(r"^(?=##+ )", (ROOT / "docs" / f"{page}.md").read_text(), flags=re.MULTILINE):
        named = re.findall(r"results/([\w-]+)\.json", section)
        if named:
            known = [figure for name in dict.fromkeys(named) for figure in figures(RESULTS / f"{name}.json")]
        if named or page == "results/README":
            rows += [(known, row) for row in re.findall(ROW, section, re.MULTILINE)]
    return rows


def typed(row: str) -> list[str]:
    """The figures of a row, but for its first cell and for what is code."""
    cells = re.sub(r"`[^`]*`", "", row).split("|")[2:]
    found = [figure for cell in cells for figure in re.findall(r"(?<![\w.])-?\d[\d,]*\.?\d*(?!\w)", cell)]
    return [figure for figure in found if len(re.sub(r"\D", "", figure)) >= DIGITS]


def is_among(figure: str, known: list[float]) -> bool:
    """Whether it is one of them, rounded as it is."""
    digits = len(figure.partition(".")[2])
    value, half = float(figure.replace(",", "")), 0.501 * 10**-digits
    return any(abs(each * form - value) <= half for each in known for form in FORMS)


@pytest.mark.parametrize("page", PAGES)
def test_a_figure_in_a_table_is_one_of_the_results(page: str) -> None:
    checked = [(figure, row, known) for known, row in tables(page) if known for figure in typed(row)]
    assert len(checked) > 1
    assert [(figure, row) for figure, row, known in checked if not is_among(figure, known)] == []


def test_another_figure_is_not() -> None:
    known = figures(RESULTS / "headlines.json")
    assert is_among("5.24", known) and not is_among("5.25", known) and not is_among("54321", known)
