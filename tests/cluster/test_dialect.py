"""What is tried on a server that does not take all of a request."""

import pytest

from cluster.dialect import Dialect, first_taken
from heliostat import InvalidRequestError
from heliostat.client import ChatOptions


def test_the_fewest_are_dropped_first() -> None:
    rungs = list(Dialect(temperature=False).rungs("usage", "ignore_eos", "max_tokens", "temperature"))
    assert [(each.usage, each.max_tokens) for each in rungs] == [
        (True, True),
        (False, True),
        (True, False),
        (False, False),
    ]


def test_a_request_in_a_dialect() -> None:
    options = ChatOptions(max_tokens=9, temperature=0, extra_body={"ignore_eos": False, "top_k": 5})
    assert Dialect().said(options) == options
    least = Dialect(usage=False, max_tokens=False, temperature=False).said(options)
    assert least == {"max_completion_tokens": 9, "extra_body": options["extra_body"], "stream_options": None}
    assert Dialect(ignore_eos=True).said(options) == options, "what was asked for wins"


async def test_what_all_dialects_are_refused_is_said_of_the_first() -> None:
    async def refuse(dialect: Dialect) -> None:
        raise InvalidRequestError(f"usage {dialect.usage}")

    with pytest.raises(InvalidRequestError, match="usage True"):
        await first_taken(Dialect().rungs("usage"), refuse)


async def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    asked: list[Dialect] = []

    async def begin(dialect: Dialect) -> None:
        asked.append(dialect)
        raise InvalidRequestError("in the middle")

    with pytest.raises(InvalidRequestError):
        await first_taken(Dialect().rungs("usage"), begin, may_repeat=lambda: False)
    assert len(asked) == 1
