"""What a benchmark asks: texts of so many tokens, sessions, models, files."""

import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cluster.bench_requests import (
    Planned,
    Prompts,
    Session,
    alternating,
    from_dataset,
    models_by,
    read_dataset,
    synthetic,
)
from cluster.bench_words import WORDS, Words, learn_words
from heliostat import HeliostatError

AROUND = 5
"""Tokens of the chat template in the tokenizers of these tests."""

SPLIT = {"government", "business"}


def letters(text: str) -> int:
    return AROUND + len(text)


def words_with_two_long_ones(text: str) -> int:
    return AROUND + sum(2 if word in SPLIT else 1 for word in text.split(" "))


def merges_everything(text: str) -> int:
    return AROUND + 1 + len(text) // 7


def counting(count: Callable[[str], int | None]) -> Callable[[str], Awaitable[int | None]]:
    async def ask(text: str) -> int | None:
        return count(text)

    return ask


@pytest.mark.parametrize("count", [letters, words_with_two_long_ones])
async def test_a_text_has_as_many_tokens_as_asked_for(count: Callable[[str], int]) -> None:
    words = await learn_words(counting(count))
    assert words.exact and words.counted
    for tokens in (7, 100, 1000):
        assert count(words.text(random.Random(tokens), words.room(tokens))) == tokens


async def test_words_that_are_two_tokens_are_left_out() -> None:
    words = await learn_words(counting(words_with_two_long_ones))
    assert set(WORDS) - set(words.words) == SPLIT


async def test_a_tokenizer_that_fits_neither_is_not_called_exact() -> None:
    words = await learn_words(counting(merges_everything))
    assert (words.exact, words.counted) == (False, True)


async def test_a_server_that_does_not_count_gets_a_word_per_token() -> None:
    words = await learn_words(counting(lambda text: None))
    assert (words.exact, words.counted) == (False, False)
    assert len(words.text(random.Random(0), words.room(50)).split()) == 50


def test_a_prompt_has_room_for_more_than_the_template() -> None:
    with pytest.raises(HeliostatError, match="prompts of 5 tokens have no room for a word: 5 are"):
        Words(WORDS, " ", AROUND, counted=True, exact=True).room(5)


PLAIN = Words(WORDS, " ", 0, counted=True, exact=True)


def sessions(
    count: int, prompts: Prompts, models: tuple[str, ...] = ("a", "b"), **more: object
) -> list[Session]:
    told = {"zipf": None, "seed": 3, "part": "run", **more}
    model_of = models_by(models, told["zipf"], told["seed"])
    return list(itertools.islice(synthetic(prompts, PLAIN, model_of, told["seed"], told["part"]), count))


def test_requests_of_a_session_share_so_many_tokens_and_its_name() -> None:
    found = sessions(3, Prompts(tokens=40, shared_tokens=30, requests_per_session=4))
    for session in found:
        words = [request.said.split() for request in session]
        assert [len(each) for each in words] == [40] * 4
        assert len({tuple(each[:30]) for each in words}) == 1
        assert len({tuple(each[30:]) for each in words}) == 4
        assert len({request.session for request in session}) == 1
    assert len({session[0].session for session in found} | {""}) == 4
    assert len({tuple(session[0].said.split()[:30]) for session in found}) == 3


def test_without_a_shared_prefix_there_is_no_session() -> None:
    (session,) = sessions(1, Prompts(tokens=40, shared_tokens=0, requests_per_session=4))
    assert {request.session for request in session} == {""}
    assert len({request.said for request in session}) == 4


def test_a_seed_decides_all_and_a_warm_up_asks_something_else() -> None:
    prompts = Prompts(tokens=40, shared_tokens=30, requests_per_session=2)
    assert sessions(5, prompts) == sessions(5, prompts)
    said = [
        {request.said for session in sessions(5, prompts, **more) for request in session}
        for more in ({}, {"seed": 4}, {"part": "warm-up"})
    ]
    assert len(set.union(*said)) == 30


def test_the_models_of_a_session_take_turns() -> None:
    found = sessions(2, Prompts(tokens=9, shared_tokens=4, requests_per_session=3), ("a", "b", "c"))
    assert [[request.model for request in session] for session in found] == [list("abc"), list("bca")]


def test_popularity_leads_with_the_first_model() -> None:
    found = sessions(2000, Prompts(9, 0, 1), ("a", "b", "c"), zipf=1.0)
    counted = Counter(request.model for session in found for request in session)
    assert [counted[model] / 2000 for model in "abc"] == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.03)


def test_a_shared_prefix_leaves_room_for_something_of_ones_own() -> None:
    with pytest.raises(HeliostatError, match="a shared prefix of 40 tokens leaves no word of its own"):
        sessions(1, Prompts(tokens=40, shared_tokens=40, requests_per_session=4))


def test_sessions_alternate_and_all_of_them_end() -> None:
    made = iter([tuple(Planned(f"{session}{number}", "") for number in range(2)) for session in "abc"])
    assert [request.model for request in alternating(made, at_once=2)] == ["a0", "b0", "a1", "b1", "c0", "c1"]


def test_a_file_of_prompts_and_of_chats(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text(
        '{"prompt": "안녕", "response": "hello"}\n\n'
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n'
    )
    rows = read_dataset(file, chat=True)
    assert rows == ["안녕", ({"role": "user", "content": "hi"},)]
    asked = itertools.islice(from_dataset(rows, models_by(("a", "b"), None, 0)), 3)
    assert [(request.model, request.said) for (request,) in asked] == [
        ("a", rows[0]),
        ("b", rows[1]),
        ("a", rows[0]),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a"}\n{"prompt": 3}\n', "asked.jsonl:2: prompt: Input should be a valid string"),
        ('{"promt": "a"}\n', 'asked.jsonl:1: needs {"prompt": text}'),
        ('{"messages": [{"role": "user", "content": "hi"}]}\n', "asked.jsonl:1: messages are for --api chat"),
        ("prompt\n", "asked.jsonl:1: Invalid JSON"),
        ("\n", "asked.jsonl is empty"),
        (None, "asked.jsonl cannot be read: .*No such file"),
    ],
)
def test_a_file_that_is_none_is_said_with_its_line(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "asked.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(HeliostatError, match=message):
        read_dataset(file, chat=False)
