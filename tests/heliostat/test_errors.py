"""The error tree crosses process borders, and its drawing is true."""

import pickle

import pytest

from heliostat import errors
from heliostat.client.answer import Answer
from heliostat.errors import (
    ContractError,
    EngineStartError,
    HeliostatError,
    OtherStatusError,
    OverloadedError,
    PoolUnavailableError,
    RequestError,
    SomeFailedError,
    SpecError,
    StreamBrokenError,
)

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HeliostatError)]
TREE_LINES = (errors.__doc__ or "").splitlines()
ARGUMENTS: dict[type[HeliostatError], tuple[object, ...]] = {
    SpecError: ("cluster.yaml", ("12: prefill.home: bad", "no line")),
    ContractError: ("prefill.a", "decode.b", "num_layers", "4", "6"),
    EngineStartError: ("home", "no memory", "engine.log"),
    OverloadedError: ("what went wrong", 2.5),
    OtherStatusError: ("what went wrong", 418, 2.5),
    StreamBrokenError: ("what went wrong", "the text so far"),
    SomeFailedError: ({"math": Answer(choices=())}, {}),
}


def example(kind: type[HeliostatError]) -> HeliostatError:
    return kind(*ARGUMENTS.get(kind, ("what went wrong",)))


@pytest.mark.parametrize("kind", TREE)
def test_an_error_survives_pickling(kind: type[HeliostatError]) -> None:
    error = example(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) != ""
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("kind", TREE)
def test_an_error_says_what_it_was_given(kind: type[HeliostatError]) -> None:
    given = example(kind).args
    texts = [part for value in given for part in (value if isinstance(value, tuple) else (value,))]
    assert all(text in str(example(kind)) for text in texts if isinstance(text, str))


def drawn_tree() -> dict[str, str]:
    """Each drawn class with the class that it hangs from, by indentation."""
    parents: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in TREE_LINES:
        name = line.lstrip(" │├└─").split(" ")[0]
        if not name.endswith("Error") or line[:4].strip():
            continue
        indent = line.index(name)
        above[indent] = name
        parents[name] = above.get(indent - 4, "Exception")
    return parents


def test_the_drawing_names_every_class_under_its_parent() -> None:
    assert drawn_tree() == {kind.__name__: kind.__bases__[0].__name__ for kind in TREE}


@pytest.mark.parametrize(
    "kind", [kind for kind in TREE if issubclass(kind, RequestError) and kind is not RequestError]
)
def test_the_drawing_gives_the_status_of_a_request_error(kind: type[RequestError]) -> None:
    drawn = [kind.__name__, kind.__bases__[0].__name__]  # a group gives the status of all that hangs from it
    lines = [line for name in drawn for line in TREE_LINES if f"─ {name} " in line]
    assert any(f" {kind.status}: " in line for line in lines)


def test_a_request_error_has_a_status() -> None:
    error = PoolUnavailableError("pool home has no replica")
    assert (error.status, error.message) == (503, "pool home has no replica")


def test_an_overload_says_when_to_come_back() -> None:
    error = OverloadedError("what went wrong", 2.5)
    assert (error.status, error.retry_after_s) == (429, 2.5)
    assert str(error) == error.message == "what went wrong"


def test_a_finding_with_a_line_follows_the_file_like_a_compilers() -> None:
    assert str(example(SpecError)) == "cluster.yaml:12: prefill.home: bad\ncluster.yaml: no line"
