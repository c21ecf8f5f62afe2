"""Facts about thoughts and Korean, on plain values."""

from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def thinking(load_example) -> ModuleType:
    return load_example("thinking/thinking.py")


@pytest.fixture(scope="module")
def korean(load_example) -> ModuleType:
    return load_example("thinking/korean.py")


@pytest.mark.parametrize(
    ("text", "reasoning", "split"),
    [
        ("40+93</think>133", "", ("40+93", "133")),
        ("<think>\n\n</think>\n\n133", "", ("", "133")),
        ("133", "", ("", "133")),
        ("133", "40+93", ("40+93", "133")),
    ],
)
def test_a_thought_is_told_from_its_answer(
    thinking: ModuleType, text: str, reasoning: str, split: tuple[str, str]
) -> None:
    assert thinking.split_thought(text, reasoning) == split


def test_a_thought_that_was_cut_off_has_no_answer(thinking: ModuleType) -> None:
    assert thinking.split_thought("lamp: 40\ntank", cut=True) == ("lamp: 40\ntank", "")
    assert thinking.split_thought("40+93</think>13", cut=True) == ("40+93", "13")


def test_one_reading_makes_no_question(thinking: ModuleType) -> None:
    with pytest.raises(ValueError, match="two readings or more"):
        thinking.sums("lamp: 40")


def test_half_a_syllable_is_a_broken_piece(korean: ModuleType) -> None:
    half = "전".encode()[:2].decode(errors="replace")
    assert korean.broken_pieces(["전등", half, "은"]) == [half]
