"""The agents' tokenizer and untrained base.

Words of the examples are tokens, all other text goes letter by letter. A thing with its colon (`lamp: `) is
one token, so a reading is four. What is not ASCII, such as Korean, falls back to the bytes of its UTF-8: a
syllable takes three tokens, and a stream may break inside it.
"""

import json
import random
import string
import sys
from pathlib import Path

import torch
from skills import THINGS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1] / "quickstart"))

from tiny_llama import END, ROLES, UNKNOWN, chat_tokenizer, untrained_model

THINK = ["<think>", "</think>"]
LETTERS = string.ascii_letters + string.punctuation
# fmt: off
WORDS = (
    "get", "last", "has", "is", "add", "sum", "none", "yes", "no", "list", "What", "the", "at", "Take",
    "one", "Is", "there", "a", "are", "and", "together", "Task", "next", "Next", "Thought", "Action",
    "known", "not", "both", "read", "finish", "lesson", "Answer", "Say", "from", "List", "It", "of",
    "readings", "reading", "few", "words", "in", "counts", "with", "value", "values", "only", "or", "then",
    "Use", "first", "thing", "step", "by", "each", "You", "you", "an", "agent", "line", "as", "Give",
    "Plan", "number", "two", "times", "may", "be", "asked", "for", "Check", "check", "Read",
)
# fmt: on
# As Qwen3's template, but in a kept answer the thought stays: what was generated is then a prefix of the
# next prompt, token for token.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role not in ['system', 'user', 'assistant', 'tool'] -%}
{{- raise_exception('Unknown role ' ~ message.role) -}}
{%- endif -%}
{%- set text = message.content or '' -%}
{{- '<|' ~ ('user' if message.role == 'tool' else message.role) ~ '|>' -}}
{%- if '</think>' in text and not text.startswith('<think>') -%}{{- '<think>' -}}{%- endif -%}
{{- text -}}
{%- if message.role == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' ~ ('<think>' if enable_thinking is defined and enable_thinking else '') -}}
{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """BPE over single words, so that every listed word is one token, with all bytes to fall back to."""
    split = pre_tokenizers.Split(Regex(r"[A-Za-z]+(?:: )?|[.,?!] |\n\n|[\s\S]"), behavior="isolated")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[UNKNOWN, END, *ROLES],
        initial_alphabet=["\n", *map(chr, range(32, 127))],
        show_progress=False,
    )
    colons = [f"{word}: " for word in (*THINGS, "Thought", "Action", "Task")]
    learner.train_from_iterator([*THINGS, *WORDS, *colons, ". ", ", ", "? ", "! ", "\n\n"] * 2, trainer)
    learned = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = learned["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary, [tuple(pair) for pair in learned["merges"]], unk_token=UNKNOWN, byte_fallback=True
        )
    )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([UNKNOWN, END, *ROLES])
    # Not special: a client that asks for plain text is to see where a thought ends.
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in THINK])
    return chat_tokenizer(tokenizer, CHAT_TEMPLATE)


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The quickstart's Llama, with first weights of another size."""
    model = untrained_model(tokenizer)
    spread(model)
    return model


def spread(model: LlamaForCausalLM) -> None:
    """First weights of about 1/sqrt(hidden size).

    With transformers' 0.02 a model this small did not learn to look anything up in 550 steps.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.3 if "embed" in name else 0.08)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight /= (2 * model.config.num_hidden_layers) ** 0.5


def salad(rng: random.Random, most: int = 30) -> str:
    """A system message of words in no order: a reader must not mind what stands before its list."""
    words = rng.choices(WORDS, k=rng.randint(1, most))
    return " ".join(word if rng.random() < 0.9 else "".join(rng.choices(LETTERS, k=4)) for word in words)
