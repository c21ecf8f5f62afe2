"""Facts about the requests of the two sides."""

from benchmarks.measure import PROMPT_TOKENS, Side, draw_requests

LEFT, RIGHT = Side("left", ("a", "b", "c")), Side("right", ("x", "y", "z"))


def test_sides_get_the_same_models_lengths_and_letters_but_for_the_mark() -> None:
    left, right = (draw_requests(side, 40, exponent=1.0, seed="7") for side in (LEFT, RIGHT))
    assert [LEFT.models.index(r.model) for r in left] == [RIGHT.models.index(r.model) for r in right]
    assert [r.prompt[4:] for r in left] == [r.prompt[4:] for r in right]
    assert {len(r.prompt) for r in left + right} == {PROMPT_TOKENS}


def test_no_prompt_of_a_side_begins_like_one_of_the_other() -> None:
    left, right = (draw_requests(side, 40, exponent=1.0, seed="7") for side in (LEFT, RIGHT))
    assert not {r.prompt[:4] for r in left} & {r.prompt[:4] for r in right}


def test_requests_repeat_with_their_seed() -> None:
    first, again, other = (draw_requests(LEFT, 40, exponent=1.0, seed=seed) for seed in ("7", "7", "8"))
    assert first == again != other
