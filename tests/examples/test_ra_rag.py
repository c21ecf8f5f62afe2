"""Facts about RA-RAG's arithmetic, on plain values."""

import json
from pathlib import Path
from types import ModuleType

import pytest

SOURCES = ("a", "b", "c")


@pytest.fixture(scope="module")
def ra_rag(load_example) -> ModuleType:
    return load_example("ra_rag/ra_rag.py")


@pytest.fixture(scope="module")
def corpora(load_example) -> ModuleType:
    return load_example("ra_rag/make_corpus.py")


def test_equal_weights_are_a_majority(ra_rag: ModuleType) -> None:
    assert ra_rag.weighted_vote({"a": "1", "b": "2", "c": "2"}, dict.fromkeys(SOURCES, 1.0)) == "2"


def test_one_reliable_source_outvotes_two_that_are_not(ra_rag: ModuleType) -> None:
    weights = {"a": 2.0, "b": 0.5, "c": 0.5}
    assert ra_rag.weighted_vote({"a": "1", "b": "2", "c": "2"}, weights) == "1"


def test_a_source_without_an_answer_has_no_vote(ra_rag: ModuleType) -> None:
    assert ra_rag.weighted_vote({"a": None, "b": "2", "c": None}, dict.fromkeys(SOURCES, 1.0)) == "2"
    assert ra_rag.weighted_vote(dict.fromkeys(SOURCES), dict.fromkeys(SOURCES, 1.0)) is None


def test_a_weight_below_zero_counts_against_an_answer(ra_rag: ModuleType) -> None:
    weights = {"a": 0.5, "b": 0.6, "c": -0.2}
    assert ra_rag.weighted_vote({"a": "1", "b": "2", "c": "2"}, weights) == "1"


def test_a_tie_leads_nobody(ra_rag: ModuleType) -> None:
    assert not ra_rag.has_leader({"a": "1", "b": "2", "c": None})
    assert ra_rag.has_leader({"a": "1", "b": None, "c": None})
    assert not ra_rag.has_leader(dict.fromkeys(SOURCES))


def test_agreement_counts_given_answers_only(ra_rag: ModuleType) -> None:
    questions = [{"a": "1", "b": "2", "c": None}, {"a": "1", "b": "1", "c": None}]
    assert ra_rag.agreement(questions, ["1", "1"], SOURCES) == {"a": 1.0, "b": 0.5, "c": 0.0}


def test_the_weight_is_sources_times_reliability_less_one(ra_rag: ModuleType) -> None:
    questions = [{"a": "1", "b": "1", "c": "2"}, {"a": "3", "b": "3", "c": "3"}]
    found = ra_rag.estimate(questions, SOURCES)
    assert found.reliability == {"a": 1.0, "b": 1.0, "c": 0.5}
    assert found.weights == {"a": 2.0, "b": 2.0, "c": 0.5}


def test_the_first_round_leaves_ties_out(ra_rag: ModuleType) -> None:
    """Taken in, the tie would make the liar right and give it the weight that settles the tie."""
    tie = {"liar": "9", "honest": "1"}
    clear = [{"liar": "9", "honest": "1", "other": "1"}] * 2
    found = ra_rag.estimate([tie, *clear], ("liar", "honest", "other"))
    assert found.reliability == {"liar": 0.0, "honest": 1.0, "other": 1.0}


def test_questions_that_are_all_ties_are_taken_as_they_are(ra_rag: ModuleType) -> None:
    found = ra_rag.estimate([{"a": "2", "b": "1"}], ("a", "b"))
    assert found.reliability == {"a": 1.0, "b": 0.0}


def test_a_tie_is_the_same_in_any_order_of_the_sources(ra_rag: ModuleType) -> None:
    answers = {"a": "1", "b": "2", "c": None}
    weights = dict.fromkeys(SOURCES, 1.0)
    turned = dict(reversed(answers.items()))
    assert ra_rag.weighted_vote(answers, weights) == ra_rag.weighted_vote(turned, weights) == "2"


async def test_a_source_without_a_document_is_not_asked(ra_rag: ModuleType) -> None:
    assert await ra_rag.ask_source(None, ra_rag.Models("read", "check"), "", "lamp") is None


def test_the_most_reliable_are_taken_among_those_that_answer(ra_rag: ModuleType) -> None:
    answers = {"a": None, "b": "1", "c": "2"}
    weights = {"a": 9.0, "b": 1.0, "c": 2.0}
    assert ra_rag.most_reliable(answers, weights, 1) == {"c": "2"}
    assert set(ra_rag.most_reliable(answers, weights, 5)) == {"b", "c"}


@pytest.mark.parametrize(("text", "value"), [("lamp: 40", "40"), ("lamp: none", None), ("", None)])
def test_an_answer_without_a_number_is_none(ra_rag: ModuleType, text: str, value: str | None) -> None:
    assert ra_rag.read_value(text) == value


def listed(corpus: dict, fact: dict[str, str]) -> dict[str, str | None]:
    """What a reader that never errs finds in each source."""
    found = {}
    for name, houses in corpus["sources"].items():
        readings = dict(line.split(": ") for line in houses[fact["house"]].splitlines())
        found[name] = readings.get(fact["thing"])
    return found


def votes_right(ra_rag: ModuleType, corpus: dict) -> tuple[int, int]:
    sources = tuple(corpus["sources"])
    weights = ra_rag.estimate([listed(corpus, fact) for fact in corpus["unlabelled"]], sources).weights
    majority = weighted = 0
    for fact in corpus["questions"]:
        answers = listed(corpus, fact)
        majority += ra_rag.weighted_vote(answers, dict.fromkeys(sources, 1.0)) == fact["value"]
        trusted = ra_rag.most_reliable(answers, weights, 4)
        weighted += ra_rag.weighted_vote(trusted, weights) == fact["value"]
    return majority, weighted


def test_weights_beat_the_majority_over_many_corpora(ra_rag: ModuleType, corpora: ModuleType) -> None:
    """On one corpus chance decides; the figures of the README are these."""
    both = [votes_right(ra_rag, corpora.make(seed)) for seed in range(200)]
    majority, weighted = (sum(each) for each in zip(*both, strict=True))
    assert (majority, weighted) == (1477, 1783)


def test_the_corpus_is_what_its_script_makes(corpora: ModuleType) -> None:

    file = Path(corpora.__file__).parent / "corpus.json"
    assert json.loads(file.read_text()) == corpora.make(seed=0)
