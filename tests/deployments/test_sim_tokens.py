import msgspec
import pytest

from deployments.sim_stream import SimSampling
from deployments.sim_tokens import DEFAULT_VOCAB, expected_tokens

PROMPT = tuple(range(100, 141))


def test_tokens_depend_on_the_prompt_and_both_modules() -> None:
    one = expected_tokens(PROMPT, "a", "b", 20)
    assert one == expected_tokens(PROMPT, "a", "b", 40)[:20]
    assert one != expected_tokens(PROMPT[:-1], "a", "b", 20)
    assert one != expected_tokens(PROMPT, "c", "b", 20)
    assert one != expected_tokens(PROMPT, "a", "c", 20)


def test_tokens_come_from_the_whole_vocabulary_and_nowhere_else() -> None:
    drawn = expected_tokens(PROMPT, "a", "b", 5000)
    assert set(drawn) == set(DEFAULT_VOCAB)
    assert set(expected_tokens(PROMPT, "a", "b", 100, range(500, 503))) == {500, 501, 502}


@pytest.mark.parametrize(("fields", "expected"), [({}, (1, 16)), ({"n": 2, "max_tokens": 3}, (2, 3))])
def test_the_encoding_of_vllms_sampling_params_is_understood(
    fields: dict[str, int], expected: tuple[int, int]
) -> None:
    raw = msgspec.msgpack.encode({"temperature": 0.0, "detokenize": False, **fields})
    sampling = msgspec.msgpack.decode(raw, type=SimSampling)
    assert (sampling.n, sampling.max_tokens) == expected
