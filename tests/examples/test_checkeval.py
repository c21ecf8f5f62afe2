"""Facts about CheckEval's arithmetic, on plain values."""

import json
from math import log
from pathlib import Path
from types import ModuleType

import pytest

from heliostat import TokenLogprob


@pytest.fixture(scope="module")
def checkeval(load_example) -> ModuleType:
    return load_example("checkeval/checkeval.py")


@pytest.fixture
def checklist(checkeval: ModuleType):
    return checkeval.Checklist({"first": ["p", "q"], "second": ["r"]}, [])


VOTES = {"one": {"p": 1.0, "q": 0.0, "r": 1.0}, "two": {"p": 1.0, "q": 1.0, "r": 0.0}}


@pytest.mark.parametrize(
    ("text", "vote"),
    [("yes", 1), ("No.", 0), (" Yes, it is.", 1), ("lamp: 41</think>no", 0), ("maybe", 0.5), ("", 0.5)],
)
def test_an_answer_is_read_after_its_thought(checkeval: ModuleType, text: str, vote: float) -> None:
    assert checkeval.says_yes(text) == vote


def test_a_score_is_the_share_of_yes(checkeval: ModuleType, checklist) -> None:
    assert checkeval.scores(VOTES, checklist)["one"] == {"first": 0.5, "second": 1.0}


def test_the_consensus_is_the_mean_or_what_most_judges_say(checkeval: ModuleType, checklist) -> None:
    assert checkeval.consensus(VOTES, checklist, majority=False) == {"first": 0.75, "second": 0.5}
    # One judge of two is not the most of them.
    assert checkeval.consensus(VOTES, checklist, majority=True) == {"first": 0.5, "second": 0.0}


def test_a_majority_is_of_judges_however_sure_they_are(checkeval: ModuleType) -> None:
    checklist = checkeval.Checklist({"only": ["p"]})
    soft = {"one": {"p": 0.99}, "two": {"p": 0.45}, "three": {"p": 0.4}}
    assert checkeval.consensus(soft, checklist, majority=True) == {"only": 0.0}
    undecided = {"one": {"p": 0.6}, "two": {"p": 0.5}, "three": {"p": 0.5}}
    assert checkeval.consensus(undecided, checklist, majority=True) == {"only": 1.0}
    assert checkeval.agreement(undecided) == pytest.approx(1 / 3)


def test_agreement_counts_pairs_of_judges(checkeval: ModuleType) -> None:
    assert checkeval.agreement(VOTES) == pytest.approx(1 / 3)
    assert checkeval.agreement({"one": VOTES["one"]}) == 1.0
    three = {**VOTES, "three": VOTES["one"]}
    assert checkeval.agreement(three) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)


def test_the_probability_is_of_yes_among_yes_and_no(checkeval: ModuleType) -> None:
    top = {"yes": log(0.6), " Yes": log(0.1), "no": log(0.2), "perhaps": log(0.1)}
    tokens = [TokenLogprob(token="yes", logprob=log(0.6), top=top), TokenLogprob(token="<|end|>")]
    assert checkeval.probability_of_yes(tokens) == pytest.approx(0.7 / 0.9)


def test_the_probability_is_read_where_the_answer_stands_after_a_thought(checkeval: ModuleType) -> None:
    thought = TokenLogprob(token="no", logprob=0.0, top={"no": 0.0})
    answer = TokenLogprob(token="yes", logprob=0.0, top={"yes": log(0.9), "no": log(0.1)})
    assert checkeval.probability_of_yes([thought, answer]) == pytest.approx(0.9)


def test_without_a_decision_or_its_likeliest_tokens_the_text_decides(checkeval: ModuleType) -> None:
    assert checkeval.probability_of_yes([TokenLogprob(token="lamp")]) == 0.5
    assert checkeval.probability_of_yes([TokenLogprob(token="no")]) == 0.0


def test_the_shipped_checklist_is_one(checkeval: ModuleType) -> None:
    told = json.loads((Path(checkeval.__file__).parent / "checklist.json").read_text())
    assert len(checkeval.Checklist(**told).questions) == 8
