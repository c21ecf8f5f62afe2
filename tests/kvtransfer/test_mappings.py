"""Segments are mapped once, known again whatever they hold by now, and let go when there are too many."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvtransfer.mappings import Mappings

SIZE = 8192


@pytest.fixture
def segment(tmp_path: Path) -> Callable[[str], int]:
    def create(name: str, size: int = SIZE) -> int:
        fd = os.open(tmp_path / name, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, os.urandom(size), 0)
        return fd

    return create


def test_a_mapping_copies_from_any_offset_into_several_views(segment) -> None:
    fd = segment("a")
    into = bytearray(3000)
    views = [memoryview(into)[:1000], memoryview(into)[1000:]]
    Mappings(SIZE).of(fd).copy(100, views)
    assert bytes(into) == os.pread(fd, 3000, 100)
    os.close(fd)


def test_a_segment_that_was_written_again_needs_no_new_mapping(segment) -> None:
    fd, mappings = segment("a"), Mappings(SIZE)
    first = mappings.of(fd)
    os.pwrite(fd, bytes(SIZE), 0)
    into = bytearray(b"x" * SIZE)
    assert mappings.of(fd) is first
    first.copy(0, [memoryview(into)])
    assert into == bytes(SIZE)
    os.close(fd)


def test_a_segment_of_another_size_is_mapped_anew(segment) -> None:
    fd, mappings = segment("a"), Mappings(4 * SIZE)
    first = mappings.of(fd)
    os.truncate(fd, 2 * SIZE)
    assert mappings.of(fd) is not first
    assert mappings.of(fd).size == 2 * SIZE
    os.close(fd)


def test_the_one_not_read_for_longest_goes_first_and_the_last_one_never(segment) -> None:
    a, b, c = (segment(name) for name in "abc")
    mappings = Mappings(2 * SIZE)
    of_a, of_b = mappings.of(a), mappings.of(b)
    mappings.of(a)
    mappings.of(c)
    assert mappings.of(a) is of_a
    assert mappings.of(b) is not of_b
    small = Mappings(1)
    assert small.of(a) is small.of(a)
    for fd in (a, b, c):
        os.close(fd)
