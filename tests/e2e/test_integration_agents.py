"""The ReAct agent with LangGraph and with LlamaIndex, beside the plain one, over the agents' cluster."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.modules

EXAMPLES = Path(__file__).parents[2] / "examples"
AGENTS = {"langchain_agent": "integrations", "llamaindex_agent": "integrations-llamaindex"}
"""And the environment in .venv that has the framework."""

RUN_S = 120


def printed(python: Path | str, script: str, base_url: str) -> str:
    done = subprocess.run(
        [python, EXAMPLES / script, "--base-url", base_url], capture_output=True, text=True, timeout=RUN_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers(text: str) -> list[tuple[str, str]]:
    """Each task, and what was made of it."""
    return re.findall(r"^(the .*): (\w+)$", text, re.MULTILINE)


@pytest.mark.parametrize("agent", AGENTS)
def test_it_answers_as_the_plain_agent_does(
    agents_cluster, python_of: Callable[[str], Path], agent: str
) -> None:
    plain = printed(sys.executable, "agents/react.py", agents_cluster.url)
    framework = printed(python_of(AGENTS[agent]), f"integrations/{agent}.py", f"{agents_cluster.url}/v1")
    assert answers(framework) == answers(plain)
    assert len(answers(plain)) == 3
    assert framework.count("  checked: yes") == plain.count("(checked: yes)") > 0
