import random
from collections import Counter

import pytest

from simulator.workload.popularity import by_turns, by_zipf, chooser, zipf_weights

MODELS = ("a", "b", "c", "d")


def test_zipf_weights_fall_with_the_rank_to_the_exponent() -> None:
    assert zipf_weights(4, 0.0) == pytest.approx((0.25,) * 4)
    assert zipf_weights(3, 1.0) == pytest.approx((6 / 11, 3 / 11, 2 / 11))
    first, second = zipf_weights(2, 2.0)
    assert first / second == pytest.approx(4.0)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_shares_follow_the_weights(exponent: float) -> None:
    choose = by_zipf(MODELS, exponent, random.Random("zipf"))
    counts = Counter(choose(0) for _ in range(20_000))
    shares = [counts[model] / 20_000 for model in MODELS]
    assert shares == pytest.approx(list(zipf_weights(4, exponent)), abs=0.011)  # three deviations at 0.5


def test_turns_go_round_within_a_group() -> None:
    choose = by_turns(MODELS)
    assert [choose(7) for _ in range(6)] == ["a", "b", "c", "d", "a", "b"]


def test_groups_do_not_disturb_each_other_and_begin_one_model_later() -> None:
    choose = by_turns(MODELS)
    assert [choose(group) for group in (5, 9, 5, 9, 2, 5)] == ["a", "b", "b", "c", "c", "c"]


def test_groups_of_one_request_spread_evenly() -> None:
    choose = chooser("turns", MODELS, 1.0, random.Random("unused"))
    assert Counter(choose(group) for group in range(100)) == dict.fromkeys(MODELS, 25)
