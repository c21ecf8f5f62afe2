"""From token frames to vLLM's `RequestOutput`: text, stop strings and log probabilities.

Replicas send token ids only; text exists from here on. vLLM's own incremental detokenizer and its processor
of log probabilities (`vllm.v1.engine`, vLLM 0.32) do the work that its output processor would do in one
process. A character whose bytes are spread over several tokens comes with the last of them, also in the log
probabilities.
"""

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tokenizers import TokenizerLike
from vllm.tokenizers.detokenizer_utils import convert_ids_list_to_tokens
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.logprobs import LogprobsProcessor

from heliostat.wire import TokenDelta, TokenFrame, TokenLogprobs


class Sequence:
    """One of a request's n sequences: everything so far, and what is new since the last output."""

    def __init__(self, index: int, request: EngineCoreRequest, tokenizer: TokenizerLike) -> None:
        self.index = index
        self.finish_reason: str | None = None
        self._stop_reason: int | str | None = None
        self._tokenizer = tokenizer
        self._detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, request)
        self._processor = LogprobsProcessor.from_new_request(tokenizer, request)
        self._logprobs: list[dict[int, Logprob]] | None = (
            [] if request.sampling_params.num_logprobs is not None else None
        )
        self._cumulative_logprob = 0.0
        self._sent_tokens = 0

    def add(self, delta: TokenDelta) -> None:
        """Take new tokens in; a stop string ends the sequence here although the engine goes on."""
        if self.finish_reason is not None:
            return
        stop_string = self._detokenizer.update(list(delta.token_ids), delta.finish_reason == "stop")
        if self._logprobs is not None:
            for position in delta.logprobs or ():
                self._add_logprobs(position)
            del self._logprobs[len(self._detokenizer.output_token_ids) :]
        if stop_string is not None:
            self.finish_reason, self._stop_reason = "stop", stop_string
        else:
            self.finish_reason, self._stop_reason = delta.finish_reason, delta.stop_reason

    def output(self, delta_only: bool) -> CompletionOutput:
        """What the OpenAI layer reads: everything, or what came since the last call."""
        text = self._detokenizer.get_next_output_text(self.finish_reason is not None, delta_only)
        # Only what is new is copied: an answer's length must not make each of its tokens dearer.
        token_ids = list(self._detokenizer.output_token_ids[self._sent_tokens if delta_only else 0 :])
        logprobs = self._logprobs
        if delta_only:
            logprobs = logprobs[self._sent_tokens :] if logprobs is not None else None
            self._sent_tokens += len(token_ids)
        return CompletionOutput(
            index=self.index,
            text=text,
            token_ids=token_ids,
            cumulative_logprob=self._cumulative_logprob if logprobs is not None else None,
            logprobs=logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self._stop_reason,
        )

    def _add_logprobs(self, position: TokenLogprobs) -> None:
        assert self._logprobs is not None
        self._cumulative_logprob += position.entries[0][1]
        ids = [token_id for token_id, *_ in position.entries]
        # Of itself a token that is a part of a character decodes to a replacement character.
        texts = self._processor._verify_tokens(
            convert_ids_list_to_tokens(self._tokenizer, ids),
            ids,
            self._processor._get_sampled_context_ids(self._logprobs),
        )
        self._logprobs.append(
            {
                token_id: Logprob(logprob, rank, text)
                for (token_id, logprob, rank), text in zip(position.entries, texts, strict=True)
            }
        )


class RequestText:
    """All sequences of one request, folded into `RequestOutput`s as the request's output kind asks."""

    def __init__(
        self,
        request: EngineCoreRequest,
        params: SamplingParams,
        tokenizer: TokenizerLike,
        prompt: str | None = None,
    ) -> None:
        self._request = request
        self._prompt = prompt
        self._kind = params.output_kind
        self._sequences = [Sequence(index, request, tokenizer) for index in range(params.n)]

    @property
    def finished(self) -> bool:
        return all(sequence.finish_reason is not None for sequence in self._sequences)

    def add(self, frame: TokenFrame, cached_tokens: int) -> RequestOutput | None:
        """The output that this frame makes due, if any."""
        touched = []
        for delta in frame.deltas:
            sequence = self._sequences[delta.index]
            if sequence.finish_reason is None:
                sequence.add(delta)
                touched.append(sequence)
        if self._kind is RequestOutputKind.FINAL_ONLY:
            if not self.finished:
                return None
            touched = self._sequences
        if not touched:
            return None
        delta_only = self._kind is RequestOutputKind.DELTA
        return RequestOutput(
            request_id=self._request.request_id,
            prompt=self._prompt,
            prompt_token_ids=self._request.prompt_token_ids,
            prompt_logprobs=None,
            outputs=[sequence.output(delta_only) for sequence in touched],
            finished=self.finished,
            num_cached_tokens=cached_tokens,
        )
