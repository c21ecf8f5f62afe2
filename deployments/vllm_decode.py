"""A decode request as vLLM runs it, and what vLLM answers as token frames (vLLM 0.32)."""

import json

import msgspec
from vllm import SamplingParams
from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind

from heliostat.wire import DecodeRequest, TokenDelta, TokenLogprobs
from kvtransfer.handoff import Direction, HandoffParams


def decode_sampling(request: DecodeRequest) -> SamplingParams:
    """The request's own sampling parameters, with what a decode replica needs of its own.

    Tokens that a lost replica generated are prompt here: limits that count output count on from them.
    """
    sampling = msgspec.msgpack.decode(request.sampling, type=SamplingParams)
    sampling.output_kind = RequestOutputKind.DELTA
    # Held back, tokens would look to the router as if they never came (`idle_s`).
    sampling.stream_interval = None
    sampling.detokenize = False
    # The router matches stop strings, because text exists only there.
    sampling.stop = []
    if sampling.structured_outputs is not None:
        # The router has checked the grammar, with a backend of its own choice; this engine makes its own.
        sampling.structured_outputs._backend = None
        sampling.structured_outputs._backend_was_auto = False
    # vLLM would drop the connector's tokens with this flag set (rule 5).
    sampling.skip_reading_prefix_cache = False
    if request.generated:
        sampling.max_tokens = request.max_tokens
        sampling.min_tokens = max(0, sampling.min_tokens - len(request.generated))
    ticket = request.ticket
    if ticket is not None and ticket.raw is not None:
        sampling.extra_args = {"kv_transfer_params": json.loads(ticket.raw)}
    elif ticket is not None:
        params = HandoffParams(
            Direction.LOAD,
            ticket.ticket_id,
            ticket.domain,
            ticket.prefix_digest,
            ticket.num_tokens,
            ticket.address,
            ticket.num_bytes,
            ticket.streamed,
        )
        sampling.extra_args = {"kv_transfer_params": params.encode()}
    return sampling


def delta(output: CompletionOutput) -> TokenDelta:
    """One sequence's new tokens."""
    logprobs = None
    if output.logprobs is not None:
        logprobs = tuple(
            TokenLogprobs(tuple((token, entry.logprob, entry.rank) for token, entry in position.items()))
            for position in output.logprobs
        )
    return TokenDelta(
        index=output.index,
        token_ids=tuple(output.token_ids),
        logprobs=logprobs,
        finish_reason=output.finish_reason,
        stop_reason=output.stop_reason,
    )
