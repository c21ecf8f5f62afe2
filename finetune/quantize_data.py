"""Calibration prompts from a file: what the layers of a quantized module are fitted to."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from heliostat.errors import HeliostatError


def read_prompts(file: Path, tokenizer: PreTrainedTokenizerBase, count: int) -> list[list[int]]:
    """Token ids of the first `count` samples, answers included: a decode module runs them too.

    A line is JSON with `messages`, or with `prompt` and perhaps `response`, which become a chat where the
    tokenizer has a template. Raises HeliostatError with file and line.
    """
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise HeliostatError(f"{file}: cannot be read: {error.strerror}; give --data a JSONL file") from error
    prompts: list[list[int]] = []
    for number, line in enumerate(lines, start=1):
        if len(prompts) == count:
            break
        if line.strip():
            prompts.append(
                tokenizer(_text(f"{file}:{number}", line, tokenizer), add_special_tokens=False).input_ids
            )
    if not any(prompts):
        raise HeliostatError(f"{file}: no calibration prompts in it; 128 lines like those served are enough")
    return [prompt for prompt in prompts if prompt]


def _text(place: str, line: str, tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        sample = json.loads(line)
    except ValueError as error:
        raise HeliostatError(f"{place}: not JSON: {error}") from error
    messages = _messages(sample)
    if not messages:
        raise HeliostatError(f'{place}: needs {{"prompt": text, "response": text}} or {{"messages": [...]}}')
    if tokenizer.chat_template is None:
        return "".join(message["content"] for message in messages)
    asks = messages[-1]["role"] != "assistant"
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
    return text


def _messages(sample: object) -> list[dict[str, str]]:
    """Empty where the sample is not of either form."""
    if not isinstance(sample, dict):
        return []
    messages = sample.get("messages")
    if messages is None:
        turns = (("user", sample.get("prompt")), ("assistant", sample.get("response")))
        messages = [{"role": role, "content": text} for role, text in turns if text is not None]
        messages = messages if messages and messages[0]["role"] == "user" else []
    good = isinstance(messages, list) and all(
        isinstance(message, dict)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        for message in messages
    )
    return messages if good else []
