"""Server-sent events, however their bytes are cut."""

import pytest

from heliostat import UnexpectedAnswerError
from heliostat.client import events
from heliostat.client.events import EventReader


def read(*chunks: bytes) -> list[str]:
    reader = EventReader()
    found = [data for chunk in chunks for data in reader.feed(chunk)]
    return [*found, *reader.end()]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_all_three_line_ends_and_any_cut(end: bytes, size: int) -> None:
    lines = [
        b": keep-alive",
        b"",
        b"data: one",
        b"",
        b"event: x",
        b"id: 3",
        b"data:two",
        b"data: 2",
        b"",
        b"",
    ]
    whole = end.join(lines)
    assert read(*(whole[i : i + size] for i in range(0, len(whole), size))) == ["one", "two\n2"]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_byte_order_mark_at_the_beginning_is_passed_over(size: int) -> None:
    whole = b"\xef\xbb\xbfdata: one\n\n"
    assert read(*(whole[i : i + size] for i in range(0, len(whole), size))) == ["one"]


def test_an_event_comes_out_with_its_last_byte() -> None:
    reader = EventReader()
    assert list(reader.feed(b"data: one\n")) == []
    assert list(reader.feed(b"\ndata")) == ["one"]


def test_the_last_empty_line_may_be_missing() -> None:
    assert read(b"data: one\n\ndata: two") == ["one", "two"]
    assert read(b"data: one\n\ndata: two\n") == ["one", "two"]


def test_characters_that_two_reads_share_are_whole() -> None:
    data = "data: 한글 👋\n\n".encode()
    for cut in range(len(data)):
        assert read(data[:cut], data[cut:]) == ["한글 👋"]


def test_bytes_that_are_no_text_cost_a_character_not_the_stream() -> None:
    assert read(b"data: a\xffb\n\n") == ["a\N{REPLACEMENT CHARACTER}b"]


def test_an_event_is_given_once_whatever_its_reader_does() -> None:
    reader = EventReader()
    reading = reader.feed(b"data: one\n\ndata: two\n\n")
    assert next(reading) == "one"
    reading.close()
    assert list(reader.feed(b"")) == ["two"]


def test_a_line_that_never_ends_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LONGEST_EVENT", 100)
    reader = EventReader()
    assert list(reader.feed(b"data: " + b"x" * 90)) == []
    with pytest.raises(UnexpectedAnswerError, match="longer than 100 bytes"):
        list(reader.feed(b"x" * 10))
    many_lines = EventReader()
    with pytest.raises(UnexpectedAnswerError, match="longer than 100 bytes"):
        list(many_lines.feed(b"data: x\n" * 101))
