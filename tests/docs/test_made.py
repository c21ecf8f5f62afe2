"""The parts of pages that are made from code and figures, and the pictures, are up to date."""

from pathlib import Path

import pytest

from benchmarks.report import Metric
from docs.site.parts import fill, table
from docs.site.result_tables import figures_table, goals_table, number, reports, runs_table
from docs.site.spec_tables import spec_table
from docs.site.write import files
from heliostat import spec
from heliostat.errors import HeliostatError
from heliostat.section import Section

SPEC_PAGE = Path(__file__).parents[2] / "docs" / "spec.md"
MEASURED = Path(__file__).parents[2] / "docs" / "results" / "measured.md"


@pytest.mark.parametrize("file", files(), ids=lambda file: file.name)
def test_a_file_holds_what_is_made_today(file: Path) -> None:
    assert file.read_text() == files()[file], "run `python -m docs.site.write`"


@pytest.mark.parametrize(
    "name", [name for name in spec.__all__ if isinstance(getattr(spec, name), type) and name != "PoolSpec"]
)
def test_every_section_of_a_spec_is_on_its_page(name: str) -> None:
    kind = getattr(spec, name)
    if issubclass(kind, Section):
        assert f"<!-- made: spec {name} -->" in SPEC_PAGE.read_text()
        undescribed = [key for key, field in kind.model_fields.items() if not field.description]
        assert undescribed == []


@pytest.mark.parametrize(
    ("section", "row"),
    [
        ("Family", "| `dtype` | `float32`, `bfloat16`, `float16` | `bfloat16` |"),
        ("Family", "| `base` | text | required |"),
        ("Family", "| `block_size` | integer above 0, or `null` | `null` |"),
        ("Pool", "| `replicas` | integer, or `{min, max}` | `1` |"),
        ("Pool", "| `surge_percent` | integer, 0 to 100 | `0` |"),
        ("Pool", "| `adapters` | texts by name | `{}` |"),
        ("Pool", "| `sim` | a section | `{}` |"),
        ("Model", "| `prefill` | name | required |"),
        ("Model", "| `prefill_adapter` | name, or `null` | `null` |"),
        ("Router", "| `model_changes` | `true`, `false` | `false` |"),
        ("Spec", "| `models` | sections by name | required |"),
    ],
)
def test_a_key_has_its_type_its_limits_and_its_default(section: str, row: str) -> None:
    assert row in spec_table(section)


def test_a_page_that_is_named_is_a_link() -> None:
    assert "[kvtransfer.md](kvtransfer.md)" in spec_table("Transfer")


def test_every_report_is_a_row_and_has_its_goals_on_the_page() -> None:
    page = MEASURED.read_text()
    for name, report in reports().items():
        assert f"{name}.json" in runs_table()
        if any(metric.goal is not None for metric in report.metrics.values()):
            assert f"<!-- made: goals {name} -->" in page or f"<!-- made: figures {name} " in page, name


def test_a_missed_goal_says_so() -> None:
    goals = goals_table("headlines")
    missed = [metric for metric in reports()["headlines"].metrics.values() if metric.met is False]
    assert goals.count("**missed**") == len(missed) > 0


def test_figures_are_those_that_are_asked_for() -> None:
    metric = reports()["sharing"].metrics["zipf1_tpot_p50"]
    row = figures_table("sharing zipf1_tpot_p50").splitlines()[-1]
    assert row == f"| `zipf1_tpot_p50` | {number(metric.value)} | {number(metric.peer)} | ms |  |"
    assert isinstance(metric, Metric)


@pytest.mark.parametrize(
    ("value", "text"),
    [(4715.5732, "4,716"), (22.734, "22.7"), (0.6292, "0.63"), (-33.2, "-33.2"), (None, "")],
)
def test_a_figure_has_the_digits_that_count(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("mark", ["spec Nothing", "spec Transport", "nobody Family", "goals nothing"])
def test_a_mark_that_names_nothing_is_an_error(mark: str) -> None:
    makers = {"spec": spec_table, "goals": goals_table}
    with pytest.raises(HeliostatError, match=f"p.md: nothing makes `{mark}`"):
        fill(f"<!-- made: {mark} -->\n<!-- /made -->", makers, "p.md")


def test_what_stands_between_two_marks_is_made_anew_and_nothing_else() -> None:
    page = "before\n<!-- made: it a -->\nold\n<!-- /made -->\nafter\n"
    assert fill(page, {"it": lambda what: f"new {what}"}, "p.md") == (
        "before\n<!-- made: it a -->\n\nnew a\n\n<!-- /made -->\nafter\n"
    )


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table(("a",), [("b|c",)]).endswith("| b&#124;c |")
