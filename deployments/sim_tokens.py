"""The tokens of a `sim` engine: a pure function of everything that a real token depends on.

Token k+1 follows from the weights that wrote the prompt's KV (their domain), the prompt, the decode weights
and the k tokens so far. A failover that forgets a token, repeats one, or mixes writers gives other tokens.
"""

import hashlib
from array import array
from collections.abc import Sequence

DEFAULT_VOCAB = range(8, 96)
"""Ids that sampling draws from: in the tokenizers seen here, above the special tokens and printable."""

_MASK = (1 << 64) - 1
_MULTIPLIER = 6364136223846793005  # Knuth's MMIX generator; its high bits are the good ones
_INCREMENT = 1442695040888963407


def first_state(token_ids: Sequence[int], prefill_domain: str, decode_weights: str, index: int = 0) -> int:
    """The history before the first output token of the `index`-th of n sequences.

    `token_ids` is the whole prompt x_1 … x_N. `prefill_domain` is empty for a prompt of one token.
    """
    digest = hashlib.blake2b(array("I", token_ids).tobytes(), digest_size=8)
    digest.update(f"\0{prefill_domain}\0{decode_weights}\0{index}".encode())
    return int.from_bytes(digest.digest(), "little")


def next_token(state: int, vocab: range) -> int:
    """The token that follows a history."""
    return vocab[(state >> 33) % len(vocab)]


def extend(state: int, token: int) -> int:
    """The history with one more token."""
    return ((state ^ token) * _MULTIPLIER + _INCREMENT) & _MASK


def expected_tokens(
    prompt_token_ids: Sequence[int],
    prefill_domain: str,
    decode_weights: str,
    n: int,
    vocab: range = DEFAULT_VOCAB,
) -> tuple[int, ...]:
    """The first n output tokens over that KV: the oracle of every test with `sim` engines."""
    state = first_state(prompt_token_ids, prefill_domain, decode_weights)
    tokens = []
    for _ in range(n):
        token = next_token(state, vocab)
        tokens.append(token)
        state = extend(state, token)
    return tuple(tokens)
