"""Which sizes a calibration measures: as far as the spec's limits and the engines' KV space let it."""

from dataclasses import dataclass

from heliostat.errors import HeliostatError
from heliostat.spec import Family, Pool

PROMPTS = (32, 64, 128, 256, 512, 1024, 2048)
SUFFIXES = (64, 256)
"""New tokens behind a cached prefix."""
BATCHES = (1, 2, 4, 8, 16, 32)
CONTEXTS = (64, 512, 1536)
ROOM = 128
"""Tokens that a measured request may generate."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """`prefill`: new and cached tokens; `handoff`: prompt tokens; `decode`: requests and their prompts."""

    prefill: tuple[tuple[int, int], ...]
    handoff: tuple[int, ...]
    decode: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """Measurements of one round."""
        return len(self.prefill) + len(self.handoff) + len(self.decode)


def sizes(family: Family, decode: Pool, kv_tokens: int, store_tokens: int) -> Sizes:
    """What fits; `kv_tokens` is the KV space of the smaller engine, 0 if nobody knows, and `store_tokens`
    what may be on its way from one to the other.

    Raises HeliostatError when the limits leave too few sizes to fit a line through.
    """
    longest = min(family.max_model_len, kv_tokens or family.max_model_len) - ROOM
    prompts = sorted({min(each, longest) for each in PROMPTS if each < 2 * longest and longest > 0})
    behind = [(new, longest // part - new) for new in SUFFIXES for part in (4, 2, 1)]
    batches = [
        (requests, context)
        for requests in BATCHES
        for context in CONTEXTS
        if requests <= decode.max_running
        and context <= longest
        and requests * context <= store_tokens
        and (not kv_tokens or requests * (context + ROOM) <= kv_tokens)
    ]
    if len(prompts) < 3 or len(batches) < 3:
        raise HeliostatError(
            f"family.max_model_len {family.max_model_len}, max_running {decode.max_running} and "
            f"{kv_tokens} tokens of KV space leave {len(prompts)} prompt lengths and {len(batches)} "
            "decode batches to measure, which is too few; raise max_model_len, max_running or kv_cache_gib"
        )
    return Sizes(
        prefill=(
            *((length, 0) for length in prompts),
            *((new, cached) for new, cached in behind if cached >= 2 * new),
        ),
        handoff=tuple(prompts),
        decode=tuple(batches),
    )
