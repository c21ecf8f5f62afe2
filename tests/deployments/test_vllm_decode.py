"""What a decode engine is told of a request's sampling parameters."""

import msgspec
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from deployments.vllm_decode import decode_sampling
from heliostat.wire import DecodeRequest


def request(params: SamplingParams, **changes: object) -> DecodeRequest:
    return DecodeRequest("r", "m", (1, 2), None, msgspec.msgpack.encode(params), **changes)


def test_the_engine_chooses_the_backend_of_a_grammar_itself() -> None:
    """The router checks the grammar with the one that fits best; a pool may be set to another."""
    structured = StructuredOutputsParams(json={"type": "object"})
    structured._backend, structured._backend_was_auto = "guidance", True
    told = decode_sampling(request(SamplingParams(structured_outputs=structured))).structured_outputs
    assert (told.json, told._backend, told._backend_was_auto) == ({"type": "object"}, None, False)


def test_stop_strings_stay_with_the_router_which_has_the_text() -> None:
    told = decode_sampling(request(SamplingParams(stop=["x"], stop_token_ids=[7], max_tokens=9)))
    assert (told.stop, told.stop_token_ids, told.max_tokens, told.detokenize) == ([], [7], 9, False)


def test_every_token_is_sent_as_it_comes() -> None:
    """Whoever waits for it in the router takes a long silence for a lost replica."""
    assert decode_sampling(request(SamplingParams(stream_interval=500))).stream_interval is None


def test_limits_of_a_replay_count_on_from_what_there_was() -> None:
    params = SamplingParams(max_tokens=9, min_tokens=5)
    told = decode_sampling(request(params, generated=(3, 4), max_tokens=7))
    assert (told.max_tokens, told.min_tokens) == (7, 3)
