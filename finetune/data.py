"""Samples as token pairs: (prompt, response), where the response closes with the end token.

A prompt has the tokens that serving makes of it: the chat template up to where the answer begins, or with
`raw` the text itself. Prompt and response are tokenized apart, as the prompt is alone when it is served.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from finetune.cache_conditioned import TokenPair
from finetune.settings import DataSettings
from heliostat.errors import HeliostatError

FORMS = '{"prompt": text, "response": text} or {"messages": [{"role": …, "content": …}, …]}'
Row = tuple[str, object]
"""Where a sample stands, and what stands there."""


@dataclass(frozen=True)
class Samples:
    """Token pairs to train on and to measure on, and how many were too long for either."""

    train: Sequence[TokenPair]
    held_out: Sequence[TokenPair] = ()
    skipped: int = 0


@dataclass(frozen=True)
class Encoder:
    """Makes a token pair of a sample. `ends`: the tokens that end an answer; the first is appended."""

    tokenizer: PreTrainedTokenizerBase
    ends: tuple[int, ...]
    raw: bool = False

    def encode(self, place: str, sample: object) -> TokenPair:
        """Raises HeliostatError with `place` where the sample is of neither form."""
        if not isinstance(sample, Mapping):
            raise HeliostatError(f"{place}: not an object; needs {FORMS}")
        if sample.get("messages") is not None:
            return self._chat(place, _messages(place, sample["messages"]))
        prompt, response = (_text(place, sample, key) for key in ("prompt", "response"))
        if self.raw or self.tokenizer.chat_template is None:
            return self._pair(place, self.tokenizer(prompt).input_ids, response)
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return self._chat(place, turns)

    def _chat(self, place: str, messages: Sequence[Mapping[str, object]]) -> TokenPair:
        last = max((i for i, turn in enumerate(messages) if turn["role"] == "assistant"), default=0)
        if last == 0:
            raise HeliostatError(f"{place}: messages: no assistant turn after another turn; nothing to learn")
        try:
            prompt = self._render(messages[:last], True)
            whole = self._render(messages[: last + 1], False)
        except (TemplateError, ValueError) as error:
            raise HeliostatError(f"{place}: the chat template refuses it: {error}") from error
        if not whole.startswith(prompt):
            raise HeliostatError(
                f"{place}: the chat template writes the prompt differently once the answer is there, so "
                "serving would not see this prompt; render it yourself and give both with --raw"
            )
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False).input_ids
        return self._pair(place, ids, whole[len(prompt) :])

    def _render(self, messages: Sequence[Mapping[str, object]], asks: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=asks
        )
        return text

    def _pair(self, place: str, prompt: list[int], response: str) -> TokenPair:
        if not prompt:
            raise HeliostatError(f"{place}: the prompt is empty")
        ids: list[int] = self.tokenizer(response, add_special_tokens=False).input_ids
        closed = [index for index, token in enumerate(ids) if token in self.ends]
        # What a template writes behind the end token (often a line break) is never generated.
        return prompt, ids[: closed[-1] + 1] if closed else [*ids, self.ends[0]]


def make_encoder(base: Path, raw: bool = False) -> Encoder:
    """The base's tokenizer and the tokens that end an answer."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    ends = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    if (base / "generation_config.json").is_file():
        more = GenerationConfig.from_pretrained(base).eos_token_id
        ends += more if isinstance(more, list) else [more] if more is not None else []
    if not ends:
        raise HeliostatError(f"{base}: neither tokenizer nor generation config has an end token")
    return Encoder(tokenizer, tuple(dict.fromkeys(ends)), raw)


def read_samples(settings: DataSettings, encoder: Encoder, max_length: int, seed: int) -> Samples:
    """All samples; those longer than `max_length` tokens are left out and counted.

    Raises HeliostatError for the first broken one, and if none remains.
    """
    limit = settings.max_length or max_length
    every = [encoder.encode(*row) for row in _rows(settings.source, settings.split)]
    train = [pair for pair in every if len(pair[0]) + len(pair[1]) <= limit]
    if not train:
        why = (
            f"all {len(every)} are longer than {limit} tokens; raise --max-length" if every else "it is empty"
        )
        raise HeliostatError(f"{settings.source}: no sample to train on: {why}")
    skipped, held_out = len(every) - len(train), list[TokenPair]()
    if isinstance(settings.held_out, Path):
        asked = [encoder.encode(*row) for row in _rows(str(settings.held_out), settings.split)]
        held_out = [pair for pair in asked if len(pair[0]) + len(pair[1]) <= limit]
        skipped += len(asked) - len(held_out)
    elif settings.held_out is not None:
        random.Random(seed).shuffle(train)
        count = max(1, round(len(train) * settings.held_out))
        train, held_out = train[count:], train[:count]
    if not train or (settings.held_out is not None and not held_out):
        raise HeliostatError(f"{settings.source}: too few samples to train on some and hold out others")
    return Samples(train, held_out, skipped)


def _rows(source: str, split: str) -> Iterator[Row]:
    path = Path(source)
    if path.is_file():
        yield from _lines(path)
        return
    if path.suffix in (".jsonl", ".json"):
        raise HeliostatError(f"{source}: no such file")
    yield from _dataset(source, split)


def _lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", _json(f"{path}:{number}", line)
        except UnicodeDecodeError as error:
            raise HeliostatError(f"{path}: not UTF-8 text: {error.reason}") from error


def _json(place: str, line: str) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        raise HeliostatError(f"{place}: not JSON: {error}; a line holds one sample") from error


def _dataset(source: str, split: str) -> Iterator[Row]:
    from datasets import load_dataset, load_from_disk

    saved = Path(source, "dataset_info.json").is_file() or Path(source, "dataset_dict.json").is_file()
    try:
        found = load_from_disk(source) if saved else load_dataset(source, split=split)
        rows = found[split] if isinstance(found, dict) else found
    except (OSError, ValueError, KeyError) as error:
        raise HeliostatError(
            f"{source}: neither a JSONL file nor a data set with a split {split}: {error}"
        ) from error
    for number, row in enumerate(rows):
        yield f"{source}[{split}]:{number}", row


def _messages(place: str, messages: object) -> list[Mapping[str, object]]:
    if not isinstance(messages, list) or not messages:
        raise HeliostatError(f"{place}: messages: not a list of turns")
    for number, turn in enumerate(messages):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
            raise HeliostatError(f"{place}: messages[{number}]: needs a role and a content")
        if (
            not isinstance(turn.get("content"), str)
            and turn["role"] == "assistant"
            and "tool_calls" not in turn
        ):
            raise HeliostatError(f"{place}: messages[{number}]: content is not text")
    return messages


def _text(place: str, sample: Mapping[object, object], key: str) -> str:
    value = sample.get(key)
    if not isinstance(value, str):
        what = "is missing" if key not in sample else f"is a {type(value).__name__}, not text"
        raise HeliostatError(f"{place}: {key} {what}; needs {FORMS}")
    return value
