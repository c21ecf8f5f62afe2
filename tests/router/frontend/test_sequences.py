"""From tokens to text: a character never comes in pieces, whatever pieces its tokens are."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tokenizers import TokenizerLike
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import uses_fast_detokenizer

from heliostat.wire import Load, TokenDelta, TokenFrame, TokenLogprobs
from router.frontend.sequences import RequestText

LOAD = Load("d", 0, 0, 0, 0.0, 1)
KOREAN = "안녕, 세계! 램프를 40으로."
OTHERS = "naïve — 日本語 🏳️‍🌈 ok"
BROKEN = "\N{REPLACEMENT CHARACTER}"


def byte_level() -> TokenizerLike:
    """As GPT-2's and Llama 3's, with no merges: a token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def byte_fallback() -> TokenizerLike:
    """As Llama 2's and Gemma's: letters that it does not know are spelt in bytes."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocab |= {
        letter: 256 + number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz ,!.0123456789")
    }
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made)


TOKENIZERS = {"byte level": byte_level, "byte fallback": byte_fallback}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> TokenizerLike:
    made = TOKENIZERS[request.param]()
    assert uses_fast_detokenizer(made)
    return made


def request_text(tokenizer: TokenizerLike, **sampling: object) -> RequestText:
    params = SamplingParams(output_kind=RequestOutputKind.DELTA, max_tokens=500, **sampling)
    prompt = tokenizer.encode("ok", add_special_tokens=False)
    request = EngineCoreRequest("r", prompt, None, params, None, 0.0, None, None, None)
    return RequestText(request, params, tokenizer)


def frame(*ids: int, index: int = 0, end: str | None = None, logprobs: bool = False) -> TokenFrame:
    said = tuple(TokenLogprobs(((each, -1.0, 1), (0, -2.0, 2))) for each in ids) if logprobs else None
    return TokenFrame((TokenDelta(index, ids, said, end),), end is not None, LOAD, None)


@pytest.mark.parametrize("text", [KOREAN, OTHERS])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_deltas_are_whole_characters(tokenizer: TokenizerLike, text: str, at_once: int) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) > len(text), "some of its characters are several tokens"
    answer, deltas = request_text(tokenizer), []
    for start in range(0, len(ids), at_once):
        output = answer.add(frame(*ids[start : start + at_once]), 0)
        deltas.append(output.outputs[0].text)
    deltas.append(answer.add(frame(ids[0], end="stop"), 0).outputs[0].text)
    assert BROKEN not in "".join(deltas)
    assert "".join(deltas) == text, "what ends an answer is not part of it"


def test_an_answer_that_is_cut_within_a_character_ends_before_it(tokenizer: TokenizerLike) -> None:
    ids = tokenizer.encode("ok 한", add_special_tokens=False)[:-1]
    answer = request_text(tokenizer)
    deltas = [answer.add(frame(each), 0).outputs[0].text for each in ids[:-1]]
    deltas.append(answer.add(frame(ids[-1], end="length"), 0).outputs[0].text)
    assert "".join(deltas) == "ok "


def test_streams_side_by_side_keep_their_bytes_apart(tokenizer: TokenizerLike) -> None:
    ids = tokenizer.encode(KOREAN, add_special_tokens=False)
    answer, texts = request_text(tokenizer, n=2, temperature=1.0), {0: "", 1: ""}
    for number in range(len(ids) + 2):
        for index, place in ((0, number), (1, number - 2)):  # one of them two tokens behind
            if 0 <= place < len(ids):
                output = answer.add(frame(ids[place], index=index), 0)
                texts[index] += output.outputs[0].text
    assert texts == {0: KOREAN, 1: KOREAN}


def test_stop_strings_of_several_bytes_are_found(tokenizer: TokenizerLike) -> None:
    ids = tokenizer.encode(KOREAN, add_special_tokens=False)
    answer, text = request_text(tokenizer, stop=["세계"]), ""
    for each in ids:
        if answer.finished:
            break
        output = answer.add(frame(each), 0)
        text += output.outputs[0].text
    assert text == KOREAN[: KOREAN.index("세계")]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", "세계")


def test_log_probabilities_name_whole_characters(tokenizer: TokenizerLike) -> None:
    """The tokens before the one that completes a character have no text."""
    ids = tokenizer.encode("a한b", add_special_tokens=False)
    answer, sampled = request_text(tokenizer, logprobs=1), []
    for each in ids:
        (position,) = answer.add(frame(each, logprobs=True), 0).outputs[0].logprobs
        sampled.append(position[each].decoded_token)
    assert sampled == ["a", "", "", "한", "b"]
