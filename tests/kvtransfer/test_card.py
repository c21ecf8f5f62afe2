"""A module's card: what is written is read again, and a broken one is named with its field."""

import json
from pathlib import Path

import pytest

from heliostat.errors import HeliostatError
from kvtransfer.card import CARD_FILE, Method, ModuleCard, read_card, write_card

CARD = ModuleCard(
    method=Method.SUN,
    role="prefill",
    kind="weights",
    base="base-weights",
    partner="decode-weights",
    tokenizer="tokens",
    metrics={"heldout_exact_match": 0.75},
    training={"steps": 100, "versions": {"torch": "2"}},
)


def put(folder: Path, **changes: object) -> None:
    """The card of these tests with other fields; a field of None is left out."""
    fields = CARD.model_dump(mode="json") | changes
    text = json.dumps({key: value for key, value in fields.items() if value is not None})
    (folder / CARD_FILE).write_text(text)


@pytest.mark.parametrize("method", Method)
def test_a_card_survives_its_file(tmp_path: Path, method: Method) -> None:
    card = CARD.model_copy(update={"method": method})
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card


def test_a_card_is_a_file_that_people_can_read(tmp_path: Path) -> None:
    write_card(tmp_path, CARD)
    text = (tmp_path / "heliostat.json").read_text()
    assert text.endswith("}\n") and len(text.splitlines()) > 10
    assert json.loads(text)["boundary"] == "last-prompt-token"


def test_a_module_without_a_card_has_none(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None


def test_a_card_of_a_later_writer_may_say_more(tmp_path: Path) -> None:
    put(tmp_path, color="red")
    assert read_card(tmp_path) == CARD


def test_who_was_trained_against_nobody_has_no_partner(tmp_path: Path) -> None:
    put(tmp_path, method="full", role="both", partner=None)
    card = read_card(tmp_path)
    assert card is not None and card.partner == ""


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"method": "moon"}, "method: Input should be 'sun', 'qsun'"),
        ({"role": "router"}, "role: Input should be 'prefill', 'decode' or 'both'"),
        ({"kind": "soft-prompt"}, "kind: Input should be 'weights' or 'adapter'"),
        ({"base": None}, "base: Field required"),
        ({"tokenizer": None}, "tokenizer: Field required"),
        ({"format": 2}, "format: Input should be 1"),
        ({"boundary": "first-answer-token"}, "boundary: Input should be 'last-prompt-token'"),
        ({"metrics": {"heldout_loss": "low"}}, "metrics.heldout_loss: Input should be a valid number"),
    ],
    ids=str,
)
def test_a_broken_field_is_named_with_its_file(
    tmp_path: Path, changes: dict[str, object], place: str
) -> None:
    put(tmp_path, **changes)
    with pytest.raises(HeliostatError) as caught:
        read_card(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / CARD_FILE}: {place}")
    assert str(caught.value).endswith("; make the module again")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_file_that_is_no_card_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CARD_FILE).write_bytes(content)
    with pytest.raises(HeliostatError) as caught:
        read_card(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / CARD_FILE}: the file: ")
