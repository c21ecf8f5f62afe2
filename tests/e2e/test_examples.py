"""The examples run as their README.md files say, over one cluster of examples/agents/cluster.yaml."""

import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from framework_programs import relaying, run_program

pytestmark = pytest.mark.modules

EXAMPLES = Path(__file__).parents[2] / "examples"
CAPTURE = runpy.run_path(str(EXAMPLES / "capture.py"))
WELL_UNDER_A_MINUTE_S = 55
Run = Callable[..., str]

DRAWN = "examples/prompt_mix/prompt_mix.py"
"""Samples without a seed: what it prints differs from run to run."""

SHOWN = [
    pytest.param(found.group(1), found.group(2), id=found.group(1).removeprefix("examples/"))
    for page in sorted(EXAMPLES.glob("*/README.md"))
    for found in CAPTURE["COMMAND"].finditer(page.read_text())
    if found.group(1) != DRAWN
]
"""Commands, and the output below them."""


def steady(printed: str) -> list[str]:
    """Text and figures in turn. How much of a prompt was cached depends on what was asked before, and whether
    two tokens come in one piece of a stream, on how busy its reader is."""
    printed = re.sub(r"\d+(?= (of them )?cached| of these brought| pieces)", "N", printed.replace("|", ""))
    return re.split(r"(\d+\.\d\d)", printed)


@pytest.fixture(scope="module")
def run(agents_cluster) -> Iterator[Run]:
    """Runs an example against the cluster; returns what it printed."""

    def run_one(script: str, *words: str) -> str:
        command = [sys.executable, str(EXAMPLES / script), "--base-url", agents_cluster.url, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WELL_UNDER_A_MINUTE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run_one


@pytest.mark.parametrize(("command", "shown"), SHOWN)
def test_an_example_prints_what_its_readme_shows(run: Run, command: str, shown: str) -> None:
    script, *words = shlex.split(command)
    printed, expected = steady(run(script.removeprefix("examples/"), *words)), steady(shown)
    assert printed[::2] == expected[::2]
    assert [float(each) for each in printed[1::2]] == pytest.approx(
        [float(each) for each in expected[1::2]], abs=0.011
    )


def test_most_examples_are_shown() -> None:
    assert len(SHOWN) >= 8


def test_react_finds_what_was_said_in_the_cache(run: Run) -> None:
    requests, prompts, cached = map(
        int, re.findall(r"(\d+) (?:requests|prompt|of them)", run("agents/react.py"))
    )
    assert requests == 27
    assert cached > prompts / 3


@pytest.mark.parametrize(
    ("framework", "environment"),
    [("langgraph", "integrations"), ("llamaindex", "integrations-llamaindex")],
)
def test_react_with_a_framework_prints_the_same(
    run: Run, agents_cluster, framework: str, environment: str, tmp_path: Path
) -> None:
    program = EXAMPLES / "agents" / f"with_{framework}.py"
    with relaying(agents_cluster.url) as relay:
        printed = run_program(program, environment, relay.base_url, tmp_path)
    *steps, requests, _ = run("agents/react.py").splitlines()
    assert printed.splitlines() == steps
    assert len(steps) == 15
    assert f"{len(relay.headers)} requests" in requests
    assert relay.only("x-heliostat-session"), "all tasks and specialists are of one session"


@pytest.mark.parametrize("prompting", ["plain", "guided", "demos", "think"])
def test_checkeval_scores_both_dimensions(run: Run, prompting: str) -> None:
    printed = run("checkeval/checkeval.py", "--prompting", prompting)
    assert set(re.findall(r"^(\w+) .*  all ", printed, re.MULTILINE)) == {"coverage", "accuracy"}
    assert re.search(r"^agreement of judges: [01]\.\d\d$", printed, re.MULTILINE)


@pytest.mark.parametrize("scoring", ["probability", "samples"])
def test_checkeval_scores_by_likelihood_and_by_samples(run: Run, scoring: str) -> None:
    printed = run("checkeval/checkeval.py", "--scoring", scoring, "--majority")
    (row,) = re.findall(r"^Is there a lamp\? +([\d. ]+)$", printed, re.MULTILINE)
    assert all(0 <= float(share) <= 1 for share in row.split())


def test_a_mix_of_promptings_covers_most(run: Run) -> None:
    printed = run("prompt_mix/prompt_mix.py", "--questions", "6")
    found = {
        name: (int(voted), int(covered))
        for name, voted, covered in re.findall(
            r"^  (\w+) +vote right +(\d+), .* (\d+)$", printed, re.MULTILINE
        )
    }
    assert list(found) == ["direct", "think", "example", "parts", "mix"]
    assert found["mix"][1] >= found["direct"][1]


def test_an_unknown_model_is_one_line_that_says_what_to_do(agents_cluster) -> None:
    command = [sys.executable, str(EXAMPLES / "thinking" / "thinking.py"), "--model", "nobody"]
    done = subprocess.run(
        [*command, "--base-url", agents_cluster.url], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "--model" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_all_models_answer_from_two_engines(agents_cluster) -> None:
    pools = httpx.get(f"{agents_cluster.url}/status").json()["pools"]
    assert sum(len(pool["replicas"]) for pool in pools) == 2
