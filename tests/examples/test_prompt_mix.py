"""Facts about mixing ways of prompting, on plain values."""

from types import ModuleType

import pytest

from heliostat import Answer, Choice


@pytest.fixture(scope="module")
def prompt_mix(load_example) -> ModuleType:
    return load_example("prompt_mix/prompt_mix.py")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("133", "133"),
        ("lamp: 40\npump: 93\n40+93</think>133", "133"),
        ("040", "40"),
        ("none", ""),
        ("000", "0"),
    ],
)
def test_a_number_is_read_after_its_thought(prompt_mix: ModuleType, text: str, number: str) -> None:
    assert prompt_mix.final_number(text) == number


def test_a_sample_that_was_cut_off_holds_no_number(prompt_mix: ModuleType) -> None:
    whole, cut = (
        Choice(text="40+64</think>104", finish_reason="stop"),
        Choice(text="40+64", finish_reason="length"),
    )
    assert prompt_mix.numbers(Answer(choices=(whole, cut))) == ["104", ""]


def test_the_majority_leaves_out_what_is_no_answer(prompt_mix: ModuleType) -> None:
    assert prompt_mix.majority(["", "", "", "7"]) == "7"
    assert prompt_mix.majority(["8", "7", "7", "8"]) == "8", "of equally common ones the first"
    assert prompt_mix.majority(["", ""]) == ""


def test_a_mix_takes_equally_many_of_each_way(prompt_mix: ModuleType) -> None:
    samples = {"one": ["a1", "a2", "a3", "a4"], "two": ["b1", "b2", "b3", "b4"]}
    assert prompt_mix.mix(samples, 4) == ["a1", "b1", "a2", "b2"]


@pytest.mark.parametrize("count", [3, 10])
def test_a_mix_that_does_not_come_out_is_refused(prompt_mix: ModuleType, count: int) -> None:
    with pytest.raises(ValueError, match="cannot be taken equally"):
        prompt_mix.mix({"one": ["a"] * 4, "two": ["b"] * 4}, count)


def test_a_score_tells_the_vote_from_what_was_among_the_samples(prompt_mix: ModuleType) -> None:
    score = prompt_mix.Score()
    score.count(["1", "1", "2"], "2")
    score.count(["2", "2", "1"], "2")
    score.count(["3"], "2")
    assert (score.questions, score.voted, score.covered) == (3, 1, 2)
