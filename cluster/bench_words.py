"""Texts of a given number of tokens, for a tokenizer that is known only by how it counts.

Words are joined that are one token each wherever they stand, so a text has as many tokens as words. Where
each letter is a token of its own, as in the quickstart's family, letters take the words' place.
"""

import asyncio
import random
import string
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from heliostat.errors import HeliostatError

Count = Callable[[str], Awaitable[int | None]]
"""Tokens of a whole prompt in which the text is all that is said; None: the server does not count."""

_COMMON = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point home
water room mother area money story fact month lot right study book eye job word business
"""
WORDS = tuple(_COMMON.split())
ENOUGH = 16
"""With fewer words the texts would be too much alike."""

SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Words:
    """`around` tokens belong to the chat template. `counted`: the server counts; `exact`: and it came out."""

    words: tuple[str, ...]
    joint: str
    around: int
    counted: bool
    exact: bool

    def text(self, rng: random.Random, tokens: int) -> str:
        """So many words."""
        return self.joint.join(rng.choices(self.words, k=tokens))

    def room(self, prompt_tokens: int) -> int:
        """Words in a prompt of so many tokens. Raises HeliostatError when there is room for none."""
        if prompt_tokens <= self.around:
            raise HeliostatError(
                f"prompts of {prompt_tokens} tokens have no room for a word: {self.around} are the template's"
            )
        return prompt_tokens - self.around


async def learn_words(count: Count) -> Words:
    """Words of which each is a token; without `exact`, of which most tokenizers make one."""
    for words, joint in ((WORDS, " "), (tuple(string.ascii_lowercase), "")):
        if (found := await _learn(count, words, joint)) is not None:
            return found
    return Words(WORDS, " ", 0, counted=await count(WORDS[0]) is not None, exact=False)


async def _learn(count: Count, words: Sequence[str], joint: str) -> Words | None:
    first = words[0]
    alone = await count(first)
    if alone is None:
        return None

    async def is_one_token(word: str) -> bool:
        # First in a text, a word may have other tokens than behind another.
        return (await count(word), await count(f"{first}{joint}{word}")) == (alone, alone + 1)

    fitting = await asyncio.gather(*(is_one_token(word) for word in words))
    kept = tuple(word for word, fits in zip(words, fitting, strict=True) if fits)
    learned = Words(kept, joint, alone - 1, counted=True, exact=True)
    if len(kept) < ENOUGH or await count(learned.text(random.Random(0), SAMPLE)) != alone - 1 + SAMPLE:
        return None
    return learned
