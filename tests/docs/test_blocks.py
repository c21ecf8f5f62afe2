"""Every code block of every page is run, read by its own program, or says why not (`docs/site/blocks.py`)."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from docs.site.blocks import Block, all_blocks, blocks, matches, output_of, path_of, program
from docs.site.commands import commands, problem
from docs.site.pages import pages
from docs.site.parts import ROOT
from docs.site.running import Place
from heliostat.specfile import load_spec

BY_LANGUAGE = frozenset({"python", "yaml", "bash"})
"""What a test knows to do with a block that has no mark."""

MARKS = frozenset({"", "run", "run by", "output", "cluster", "continues", "shown", "not run"})

BASE: dict[str, object] = {"family": {"base": "org/base"}}
"""What a part of a spec is completed with."""


def some(choose: Callable[[Block], bool]) -> pytest.MarkDecorator:
    """Parametrizes a test with those blocks, by page and line."""
    return pytest.mark.parametrize("block", [block for block in all_blocks() if choose(block)], ids=str)


def is_read(block: Block, language: str) -> bool:
    return block.language == language and block.kind in ("", "run", "cluster", "continues")


def test_there_are_blocks_on_pages() -> None:
    found = list(all_blocks())
    assert len(found) > 80
    fences = sum(len(re.findall(r"^ *```", (ROOT / page).read_text(), re.MULTILINE)) for page in pages())
    assert fences == 2 * len(found), "each block is found"


@some(lambda block: True)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.kind in MARKS, f"{block}: `{block.kind}` is no mark; docs/site/blocks.py has them"
    if block.kind == "":
        assert block.language in BY_LANGUAGE, f"{block}: mark it; docs/site/blocks.py has the marks"
    if block.kind == "not run":
        assert len(block.rest) > 8, f"{block}: say why"
    if block.kind == "run":
        assert block.language == "bash" or block.text.startswith("$ "), f"{block}: nothing to run"
    if block.kind in ("cluster", "continues"):
        assert block.language in BY_LANGUAGE, f"{block}: nothing to run"


@some(lambda block: block.kind == "output")
def test_an_output_stands_behind_what_is_run(block: Block) -> None:
    before = [each for each in blocks(block.page) if each.line < block.line]
    assert before, f"{block}: nothing is before it"
    assert is_read(before[-1], "python") or (before[-1].language, before[-1].kind) in (
        ("bash", "run"),
        ("bash", "cluster"),
    ), f"{block}: what stands before it is not run"


@some(lambda block: block.kind == "shown")
def test_the_test_that_shows_a_block_exists_and_looks_at_it(block: Block) -> None:
    file, name = path_of(block.rest)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tests = {node.name: node for node in ast.parse(file.read_text()).body if isinstance(node, functions)}
    assert name in tests, f"{block}: there is no {block.rest}"
    assert "shown" in {argument.arg for argument in tests[name].args.args}, (
        f"{block.rest} does not ask for `shown`"
    )


@some(lambda block: block.kind == "run by")
def test_the_test_that_runs_a_page_exists_and_names_it(block: Block) -> None:
    file, name = path_of(block.rest)
    source = file.read_text()
    assert f"def {name}(" in source, f"{block}: there is no {block.rest}"
    assert Path(block.page).name in source, f"{block}: {block.rest} is about other pages"


@some(lambda block: is_read(block, "bash"))
def test_commands_are_read_by_their_own_parsers(block: Block) -> None:
    found = [f"{' '.join(words)}: {trouble}" for words in commands(block.text) if (trouble := problem(words))]
    assert found == []


@some(lambda block: block.language == "bash" and block.kind == "run")
def test_commands_that_are_marked_run(block: Block, place: Place) -> None:
    printed = place.shell(block.text)
    expected = output_of(block)
    assert expected is None or matches(expected, printed), printed


@some(lambda block: block.language == "text" and block.kind == "run")
def test_what_a_page_says_that_a_command_prints(block: Block, place: Place) -> None:
    command, _, expected = block.text.removeprefix("$ ").partition("\n")
    printed = place.shell(command).replace(f"{ROOT}/", "…/").replace(f"{place.folder}/", "…/")
    assert matches(expected, printed), printed


@some(lambda block: is_read(block, "python"))
def test_programs_run(block: Block, place: Place) -> None:
    printed = place.python(program(block))
    expected = output_of(block)
    assert expected is None or matches(expected, printed), printed


@some(lambda block: is_read(block, "yaml"))
def test_specs_and_parts_of_specs_are_read(block: Block, tmp_path: Path) -> None:
    spec = tmp_path / "cluster.yaml"
    spec.write_text(yaml.safe_dump(whole(yaml.safe_load(block.text), tmp_path)))
    load_spec(spec)


def whole(part: dict[str, object], folder: Path) -> dict[str, object]:
    """A part of a spec with what it lacks: a family, the pools that its models name, models for its pools.

    Local directories that it names are made in `folder`.
    """
    spec: dict[str, object] = {**BASE, **part}
    models = spec.get("models") or {
        "some": {"prefill": _first(part, "prefill"), "decode": _first(part, "decode")}
    }
    assert isinstance(models, dict)
    spec["models"] = models
    for role in ("prefill", "decode"):
        named = {model[role]: {"weights": "org/tuned"} for model in models.values()}
        given = part.get(role) or {}
        assert isinstance(given, dict)
        spec[role] = named | given
    for name in re.findall(r"\./([\w-]+)", str(spec)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text("{}")
        (folder / name / "adapter_config.json").write_text('{"r": 8}')
    return spec


def _first(part: dict[str, object], role: str) -> str:
    pools = part.get(role) or {"some": {}}
    assert isinstance(pools, dict)
    return str(next(iter(pools)))


@pytest.mark.parametrize("page", pages())
def test_commands_within_a_line_exist(page: str) -> None:
    """`heliostat serve` and the like, in running text."""
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`(?:\.venv/bin/)?heliostat ([a-z]+)", text))
    wrong = {name: told for name in named if (told := problem(["heliostat", name, "--help"]))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a … c", "a b c\n", True),
        ("a\nb", "a  \nb", True),
        ("a#efu3nmul", "a#12345678", True),
        ("a#efu3nmul", "a#1234", False),
        ("a", "a\nb", False),
        ("a.c", "abc", False),
    ],
)
def test_printed_text_is_compared_but_for_what_changes(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) == same
