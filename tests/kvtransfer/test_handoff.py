"""What rides on a request: parameters that survive the way into the engine, and the prompt's digest."""

import hashlib
import json
import struct

import pytest

from kvtransfer.handoff import PARAMS_KEY, Direction, HandoffParams, digest_tokens


@pytest.mark.parametrize("direction", Direction)
def test_parameters_survive_a_way_over_plain_json(direction: Direction) -> None:
    params = HandoffParams(direction, "0abc", "domain", "digest", 17, "there", 64, streamed=True)
    decoded = HandoffParams.decode(json.loads(json.dumps(params.encode())))
    assert decoded == params
    assert decoded is not None and isinstance(decoded.direction, Direction)


def test_encoded_parameters_are_plain_strings_and_numbers() -> None:
    encoded = HandoffParams(Direction.SAVE, "0abc", "domain", "digest", 17).encode()
    assert list(encoded) == [PARAMS_KEY]
    assert {type(value) for value in encoded[PARAMS_KEY].values()} <= {str, int, bool}


@pytest.mark.parametrize("raw", [None, {}, {"do_remote_prefill": True}, {PARAMS_KEY: None}])
def test_a_request_without_a_handoff_has_none(raw: dict[str, object] | None) -> None:
    assert HandoffParams.decode(raw) is None


def test_the_prefix_digest_is_over_little_endian_ids_and_keyed_by_the_domain() -> None:
    key = hashlib.blake2b(b"domain", digest_size=16).digest()
    expected = hashlib.blake2b(struct.pack("<3I", 1, 2, 70000), digest_size=16, key=key).hexdigest()
    assert digest_tokens((1, 2, 70000), "domain") == expected


def test_one_prompt_has_a_digest_for_each_writer() -> None:
    assert len({digest_tokens((1, 2), domain) for domain in ("base", "base+a", "base+b")}) == 3


def test_the_prefix_digest_tells_prompts_apart() -> None:
    prompts = [(), (0,), (0, 0), (1, 2), (2, 1), (258,), (1, 2, 3)]
    assert len({digest_tokens(prompt, "domain") for prompt in prompts}) == len(prompts)


def test_a_list_and_a_tuple_of_ids_have_one_digest() -> None:
    assert digest_tokens([5, 6], "domain") == digest_tokens((5, 6), "domain")
