"""Facts about the pages: their links, commands and figures are those of this repository."""

import ast
import json
import re
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import pytest

import heliostat
from cluster.plan import make_plan
from docs.site.pages import pages
from heliostat.specfile import load_spec

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
PACKAGES = ("cluster", "deployments", "finetune", "heliostat", "kvtransfer", "router", "simulator")
PAGES = pages()
NAIVE = {
    "home": "naive_full_prefill_base_decode",
    "mirror": "naive_full_prefill_base_decode",
    "spell": "naive_base_prefill_full_decode",
}
"""Which mixture of an ordinary fine-tune and the base stands in the README beside each model."""


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text()


def fences(page: str, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def test_there_are_pages() -> None:
    assert len(PAGES) > 10


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    folders = "|".join((*PACKAGES, "benchmarks", "docs", "examples", "scripts", "tests"))
    named = set(re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*\w", text(page)))
    missing = {name for name in named if not (ROOT / name).exists()}
    # A word in capitals stands for something, as in `tests/FOLDER`; a benchmark's run writes the results.
    assert {name for name in missing if not re.search(r"/[A-Z]+\b", name)} <= {
        "benchmarks/results/sharing.json"
    }


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_a_page_names_exist(page: str) -> None:
    for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", text(page)):
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        defined = {node.name for node in ast.parse(text(file)).body if isinstance(node, functions)}
        assert name in defined, f"{page} names {file}::{name}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_that_a_page_names_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z ]+):", text("Makefile"), re.MULTILINE))
    known = {target for line in targets for target in line.split()}
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text(page), re.MULTILINE)) <= known


def test_yaml_in_the_readme_is_the_quickstarts() -> None:
    blocks = fences("README.md", "yaml")
    assert blocks
    assert all(block in (QUICKSTART / "cluster.yaml").read_text() for block in blocks)


def test_the_readme_has_the_provenances_figures() -> None:
    provenance = json.loads((QUICKSTART / "provenance.json").read_text())
    rows = {row.split("`")[1]: row for row in text("README.md").splitlines() if row.startswith("| `")}
    for facts in provenance["modules"].values():
        model = facts["task"] if facts["task"] in NAIVE else "base"
        figures = [percent(facts["heldout"]["exact_match"])]
        if model in NAIVE:
            figures.append(percent(provenance["controls"][model][NAIVE[model]]["exact_match"]))
        cells = [cell.strip() for cell in rows[model].strip("|").split("|")]
        assert cells[-2:][: len(figures)] == figures, (
            f"README.md, row `{model}`: {figures} are in the provenance"
        )


@pytest.mark.parametrize("page", ["README.md", "docs/cluster.md"])
def test_the_plan_on_a_page_is_the_quickstarts(page: str) -> None:
    plan = make_plan(load_spec(QUICKSTART / "cluster.yaml"))
    domains = [pool.domain for pool in plan.pools if pool.domain]
    assert len(domains) == 3
    assert [domain for domain in domains if domain not in text(page)] == []


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[([\d.]+)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == heliostat.__version__


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_has_a_page_that_opens_with_a_sentence(package: str) -> None:
    lines = text(f"docs/{package}.md").splitlines()
    assert lines[0] == f"# {package}"
    paragraph = " ".join(takewhile(bool, lines[2:]))
    assert re.match(r"[A-Z][^#|]+\.", paragraph), paragraph


def test_every_package_in_the_wheel_is_one_of_ours() -> None:
    """`heliostat` has a wheel of its own (`tests/heliostat/test_distribution.py`)."""
    wheel = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted([*wheel["packages"], "heliostat"]) == sorted(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_has_a_package_of_our_name(package: str) -> None:
    """An editable install records no files, so there the answer is empty, not the distribution's name."""
    ours = "heliostat-client" if package == "heliostat" else "heliostat"
    assert set(packages_distributions().get(package, ())) <= {ours}
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin == str(ROOT / package / "__init__.py")
