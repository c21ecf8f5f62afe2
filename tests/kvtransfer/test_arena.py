"""The arena gives every byte to one owner at a time, and takes all of them back."""

import random

import pytest

from kvtransfer.arena import Arena, Span

PAGE = Arena.ALIGNMENT


def test_room_is_given_in_whole_pages() -> None:
    arena = Arena(10 * PAGE - 1)
    assert arena.size == arena.free_bytes == 10 * PAGE
    assert arena.reserve(1) == Span(0, PAGE)
    assert arena.reserve(PAGE + 1) == Span(PAGE, 2 * PAGE)
    assert arena.free_bytes == 7 * PAGE


def test_even_nothing_has_a_place_of_its_own() -> None:
    arena = Arena(2 * PAGE)
    assert arena.reserve(0) == Span(0, PAGE)
    assert arena.reserve(0) == Span(PAGE, PAGE)
    assert arena.reserve(0) is None


def test_more_than_the_largest_free_span_is_refused_and_changes_nothing() -> None:
    arena = Arena(3 * PAGE)
    assert arena.reserve(3 * PAGE + 1) is None
    spans = [arena.reserve(PAGE) for _ in range(3)]
    arena.free(Span(0, PAGE))
    arena.free(Span(2 * PAGE, PAGE))
    assert arena.free_bytes == 2 * PAGE
    assert arena.reserve(2 * PAGE) is None, "the two free pages are not neighbours"
    assert arena.reserve(PAGE) == spans[0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)])
def test_freed_neighbours_become_one(order: tuple[int, ...]) -> None:
    arena = Arena(3 * PAGE)
    spans = [arena.reserve(PAGE) for _ in range(3)]
    for index in order:
        span = spans[index]
        assert span is not None
        arena.free(span)
    assert arena.reserve(3 * PAGE) == Span(0, 3 * PAGE)


def test_a_span_is_where_the_memory_says_it_is() -> None:
    arena = Arena(2 * PAGE)
    arena.reserve(PAGE)
    span = arena.reserve(PAGE)
    assert span is not None
    arena.memory[span.start : span.start + 4] = b"here"
    assert bytes(arena.memory[PAGE : PAGE + 4]) == b"here"
    assert arena.base % PAGE == 0


@pytest.mark.parametrize("seed", range(20))
def test_spans_never_overlap_and_all_bytes_come_back(seed: int) -> None:
    draw = random.Random(seed)
    arena = Arena(64 * PAGE)
    held: list[Span] = []
    for _ in range(500):
        wanted = draw.randrange(12 * PAGE)
        if held and draw.random() < 0.5:
            arena.free(held.pop(draw.randrange(len(held))))
        elif span := arena.reserve(wanted):
            assert span.size >= wanted
            held.append(span)
        held.sort()
        ends = [span.start + span.size for span in held]
        assert all(end <= span.start for end, span in zip(ends, held[1:], strict=False))
        assert not ends or ends[-1] <= arena.size
        assert arena.free_bytes == arena.size - sum(span.size for span in held)
    for span in held:
        arena.free(span)
    assert arena.reserve(arena.size) == Span(0, arena.size)
