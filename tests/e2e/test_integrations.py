"""The programs of examples/integrations, each with the real framework, against the quickstart's models.

They print what docs/integrations.md says, over one session, and talk to nobody else.
"""

import re
from pathlib import Path

import pytest
from framework_programs import ROOT, relaying, run_program

pytestmark = pytest.mark.cluster

PAGE = ROOT / "docs" / "integrations.md"
PROGRAMS = {
    "with_openai": "integrations",
    "with_langchain": "integrations",
    "with_llamaindex": "integrations-llamaindex",
    "with_openai_agents": "integrations",
    "with_pydantic_ai": "integrations",
    "with_dspy": "integrations",
}
"""And the environment in .venv that has its framework."""


def printed(program: str) -> str:
    """What the page says that it prints: its own section, or the page's first output."""
    page = PAGE.read_text()
    *_, section = (each for each in page.split("\n## ") if f"integrations/{program}.py" in each)
    return (
        re.findall(r"```text\n(.*?)```", section, re.DOTALL)
        or re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    )[0]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_what_its_page_says(program: str, cluster, tmp_path: Path) -> None:
    script = ROOT / "examples" / "integrations" / f"{program}.py"
    with relaying(cluster.url) as relay:
        assert run_program(script, PROGRAMS[program], relay.base_url, tmp_path) == printed(program)
    assert relay.only("x-heliostat-session"), "all that is asked over one context is of one session"
    hinted = sum(headers.get("x-heliostat-expected-tokens") == "16" for headers in relay.headers)
    assert hinted >= 4, "one hint for each specialist"
