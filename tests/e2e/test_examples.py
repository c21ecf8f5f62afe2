"""The examples run as their README.md files say, over one cluster of examples/agents/cluster.yaml."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from framework_programs import relaying, run_program

pytestmark = pytest.mark.modules

EXAMPLES = Path(__file__).parents[2] / "examples"
WELL_UNDER_A_MINUTE_S = 55
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(agents_cluster) -> Iterator[Run]:
    """Runs an example against the cluster; returns what it printed."""

    def run_one(script: str, *words: str) -> str:
        command = [sys.executable, str(EXAMPLES / script), "--base-url", agents_cluster.url, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WELL_UNDER_A_MINUTE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run_one


def test_react_answers_its_tasks(run: Run) -> None:
    printed = run("agents/react.py")
    assert re.findall(r"^the .*: (\w+)$", printed, re.MULTILINE) == ["133", "079", "024"]
    assert re.search(r"the lamp is not known -> read lamp -> lamp: 40 \(checked\)", printed)
    requests, prompts, cached = map(int, re.findall(r"(\d+) (?:requests|prompt|of them)", printed))
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


def test_reflexion_needs_its_lesson(run: Run) -> None:
    trials = re.findall(r"^trial (\d): read (.*); (.*)$", run("agents/reflexion.py"), re.MULTILINE)
    assert trials == [("1", "40", "Take the last lamp."), ("2", "35, 93", "128")]


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


def test_ra_rag_trusts_those_who_took_care(run: Run) -> None:
    printed = run("ra_rag/ra_rag.py")
    ranked = re.findall(r"^  (\w+) +reliability", printed, re.MULTILINE)
    assert set(ranked[:2]) == {"owner", "janitor"}
    (majority, weighted) = map(int, re.findall(r"(?:majority|weighted) (\d+) of 10", printed))
    assert weighted >= majority
    assert weighted >= 8


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


def test_thinking_is_a_switch_of_each_request(run: Run) -> None:
    printed = run("thinking/thinking.py")
    assert re.search(r"^thinking on: .*</think>\|\d\|\d\|\d\|", printed, re.MULTILINE)
    off, on = (int(right) for right in re.findall(r"^thinking \w+: (\d+) of 15 right", printed, re.MULTILINE))
    assert on > off


def test_korean_comes_without_broken_characters(run: Run) -> None:
    printed = run("thinking/korean.py")
    counted = re.findall(r"(\d+) tokens, (\d+) pieces, (\d+) broken; the same unstreamed", printed)
    assert len(counted) == 4
    assert all(int(pieces) < int(tokens) for tokens, pieces, _ in counted), "syllables of several tokens"
    assert "전등은 40입니다." in printed.replace("|", "")


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
