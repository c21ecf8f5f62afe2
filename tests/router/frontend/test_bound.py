"""Which answers another replica could not carry on with (rule 6): what vLLM reckons from the output alone."""

import pytest
from vllm.sampling_params import RepetitionDetectionParams, SamplingParams, StructuredOutputsParams
from vllm.v1.core.sched.utils import check_sequence_repetition

from router.frontend.engine_client import bound

THREE_TIMES = RepetitionDetectionParams(max_pattern_size=2, min_count=3)

LOOK_BACK = {
    "n": ({"n": 2}, "several sequences"),
    "structured_outputs": ({"structured_outputs": StructuredOutputsParams(regex="[a-z]")}, "structured"),
    "presence_penalty": ({"presence_penalty": 1.0}, "count output only"),
    "frequency_penalty": ({"frequency_penalty": -1.0}, "count output only"),
    "bad_words": ({"bad_words": ["lamp"]}, "bad_words"),
    "repetition_detection": ({"repetition_detection": THREE_TIMES}, "repetition_detection"),
    "seed": ({"seed": 7}, "seed"),
}

CARRY_ON = {
    # Each token is drawn from its own logits; a repetition penalty counts prompt and output alike.
    "repetition_penalty", "temperature", "top_p", "top_k", "min_p", "logit_bias", "allowed_token_ids",
    # Ends: of the tokens that are still to come.
    "stop", "stop_token_ids", "ignore_eos", "max_tokens", "min_tokens",
    # Of what is shown.
    "logprobs", "logprob_token_ids", "flat_logprobs", "detokenize", "skip_special_tokens",
    "spaces_between_special_tokens", "include_stop_str_in_output", "output_kind", "stream_interval",
    # Refused, or set by the server.
    "prompt_logprobs", "prompt_logprob_token_ids", "prompt_logprob_start", "watermarking", "extra_args",
    "thinking_token_budget", "routed_experts_prompt_start", "trace_decode_token_ids", "skip_clone",
    "skip_reading_prefix_cache", "output_text_buffer_length",
}  # fmt: skip


@pytest.mark.parametrize("name", LOOK_BACK)
def test_an_answer_that_looks_back_is_bound_to_its_replica(name: str) -> None:
    params, reason = LOOK_BACK[name]
    assert reason in bound(SamplingParams(**params))


def test_others_are_not() -> None:
    assert bound(SamplingParams(temperature=1.0, repetition_penalty=1.1, min_tokens=3)) == ""
    assert bound(SamplingParams(seed=7, temperature=0)) == "", "nothing is drawn"
    assert bound(SamplingParams(repetition_detection=RepetitionDetectionParams())) == "", "it is off"


def test_a_repetition_of_which_a_part_is_prompt_is_not_found() -> None:
    """As after a failover, where another replica has the tokens so far as prompt."""
    output = [5, 6, 5, 6, 5, 6]
    assert check_sequence_repetition(output, THREE_TIMES)
    assert not check_sequence_repetition(output[2:], THREE_TIMES)


def test_every_sampling_parameter_of_vllms_is_one_or_the_other() -> None:
    public = {name for name in SamplingParams.__struct_fields__ if not name.startswith("_")}
    assert public == LOOK_BACK.keys() | CARRY_ON
