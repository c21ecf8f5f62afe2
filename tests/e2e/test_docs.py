"""What the pages say of a cluster, said to one: the commands and programs that are marked `cluster`."""

import json
import re
from pathlib import Path

import pytest
from pydantic import JsonValue
from served_cluster import Cluster

from docs.site.blocks import Block, all_blocks, blocks, matches, output_of, program
from docs.site.running import Place

pytestmark = pytest.mark.cluster

ASKED = [block for block in all_blocks() if block.kind == "cluster"]
CHANGES = {"id", "created", "cached_tokens", "system_fingerprint"}
"""What is another value each time, or on each machine."""


@pytest.fixture
def place(tmp_path: Path, cluster: "Cluster") -> Place:
    return Place(tmp_path, cluster.url).prepare()


def test_the_first_pages_ask_a_cluster() -> None:
    assert {"README.md", "docs/quickstart.md"} <= {block.page for block in ASKED}


@pytest.mark.parametrize("block", ASKED, ids=str)
def test_what_a_page_asks_a_cluster_is_answered_as_it_says(block: Block, place: Place) -> None:
    printed = place.python(program(block)) if block.language == "python" else place.shell(block.text)
    expected = output_of(block)
    assert printed.strip()
    assert expected is None or matches(without_bars(expected), without_bars(printed)), printed


def without_bars(text: str) -> str:
    """Bars stand between the pieces of a stream; two tokens may be one piece where its reader is busy."""
    return text.replace("|", "")


def test_the_answer_with_its_headers(place: Place, shown: str) -> None:
    """The one under the README's first command."""
    curl = next(block for block in blocks("README.md") if block.kind == "cluster")
    head, _, body = place.shell(curl.text).replace("\r", "").partition("\n\n")
    shown_head, _, shown_body = shown.partition("\n\n")
    wanted = re.sub(r"#[a-z0-9]{8}", "#", shown_head).splitlines()
    assert set(wanted) <= set(re.sub(r"#[a-z0-9]{8}", "#", head).splitlines())
    assert_has(json.loads(body), json.loads(shown_body.replace("\n", "")))


def assert_has(answer: JsonValue, wanted: JsonValue, key: str = "") -> None:
    """An answer has all that is wanted of it; it may have more."""
    if isinstance(wanted, dict):
        assert isinstance(answer, dict)
        for name, value in wanted.items():
            assert name in answer
            assert_has(answer[name], value, name)
    elif isinstance(wanted, list):
        assert isinstance(answer, list)
        for each, value in zip(answer, wanted, strict=True):
            assert_has(each, value)
    elif key not in CHANGES:
        assert answer == wanted, key
