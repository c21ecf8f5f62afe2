"""docs/openai.md has every parameter: no new one of vLLM's can come in silence."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest

from router.frontend.parameters import IGNORED, OWN, REFUSED

PAGE = (Path(__file__).parents[3] / "docs" / "openai.md").read_text()
SECTION = PAGE.split("\n## Parameters\n")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| (.+?) \| (.+?) \|", SECTION, re.MULTILINE)


def named(*words: str) -> set[str]:
    """Parameters of the rows whose second cell begins with one of the words."""
    return {name for row, cell in ROWS if cell.startswith(words) for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("kind", [ChatCompletionRequest, CompletionRequest])
def test_every_parameter_that_vllm_knows_has_a_row(kind: type[BaseModel]) -> None:
    assert kind.model_fields.keys() - named("") == set()


def test_so_has_every_other_one_that_is_looked_at() -> None:
    assert (IGNORED | REFUSED.keys() | OWN.keys()) - named("") == set()


def test_what_the_page_calls_ignored_is_ignored() -> None:
    assert named("ignored") == IGNORED


def test_nothing_is_both_ignored_and_refused() -> None:
    assert IGNORED & REFUSED.keys() == set()
