"""Which model brought a block of KV to a replica's prefix cache: what sharing saves, as a count of tokens."""

import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Sequence

import msgspec

from heliostat.wire import DecodeRequest, TokenFrame
from router.prefix_index import chain, first_link

BLOCK_TOKENS = 16
"""Engines count cached tokens by whole blocks of their own, which are a multiple of this."""

MAX_BLOCKS = 131_072
"""About two million tokens, in some 25 MB."""


class Bringers:
    """Block of KV -> the model that had it written in this replica; the least recently used goes first.

    An engine's answer says how much of a prompt it had, not since when. Of several models that ask about one
    context at the same time, the one whose prefill computes it may well answer last. So a block that nobody
    has brought is expected of the first model that comes with it (`claim`), until an answer says who has had
    it computed (`Claim.found`).

    Only the replica can know: its requests come through several routers. A block that it has forgotten, or
    that came otherwise, is nobody's, so it counts too little rather than too much. One event loop's.
    """

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._models: OrderedDict[int, str] = OrderedDict()
        self._expected: OrderedDict[int, str] = OrderedDict()

    def __len__(self) -> int:
        """Blocks whose bringer is known."""
        return len(self._models)

    def claim(self, model: str, domain: str, token_ids: Sequence[int]) -> "Claim":
        """A prompt has come for this model, for KV of that domain (`heliostat.wire.adapted_domain`)."""
        blocks = chain(first_link(domain), token_ids, BLOCK_TOKENS)
        for block in blocks:
            if block not in self._models:
                self._expected.setdefault(block, model)
        self._trim()
        return Claim(self, model, domain, tuple(token_ids), blocks)

    def found(self, model: str, blocks: Sequence[int], num_tokens: int, cached_tokens: int) -> int:
        """As `Claim.found`, of a prompt of `num_tokens` tokens in these blocks."""
        models, expected, cross_model = self._models, self._expected, 0
        for number, block in enumerate(blocks):
            start = number * BLOCK_TOKENS
            end = min(start + BLOCK_TOKENS, num_tokens)
            bringer = models.get(block) or expected.get(block, model)
            if bringer != model and cached_tokens > start:
                cross_model += min(cached_tokens, end) - start
            elif expected.get(block) == model:
                del expected[block]  # it is known now; and if it was there already, it is nobody's
            if cached_tokens < end:
                models[block] = model
                expected.pop(block, None)
            if block in models:
                models.move_to_end(block)
        self._trim()
        return cross_model

    def wrote(self, model: str, blocks: Sequence[int]) -> None:
        """These blocks are there; of those that nobody has brought, this model is the bringer."""
        for block in blocks:
            self._models.setdefault(block, self._expected.pop(block, model))
            self._models.move_to_end(block)
        self._trim()

    def _trim(self) -> None:
        for known in (self._models, self._expected):
            for _ in range(len(known) - self._max_blocks):
                known.popitem(last=False)


class Claim:
    """One request's prompt in a replica, from its arrival on."""

    def __init__(
        self, bringers: Bringers, model: str, domain: str, token_ids: tuple[int, ...], blocks: tuple[int, ...]
    ) -> None:
        self._bringers = bringers
        self._model = model
        self._domain = domain
        self._token_ids = token_ids
        self._blocks = blocks

    def found(self, cached_tokens: int) -> int:
        """The engine had the prompt's first `cached_tokens` tokens and computed the rest: how many of them
        another model has brought."""
        return self._bringers.found(self._model, self._blocks, len(self._token_ids), cached_tokens)

    def wrote(self, token_ids: Sequence[int]) -> None:
        """The KV of the prompt and of these tokens behind it is in the engine's cache now (ICaRus)."""
        whole = len(self._token_ids) // BLOCK_TOKENS
        parent = self._blocks[whole - 1] if whole else first_link(self._domain)
        rest = (*self._token_ids[whole * BLOCK_TOKENS :], *token_ids)
        self._bringers.wrote(self._model, (*self._blocks[:whole], *chain(parent, rest, BLOCK_TOKENS)))


async def noted(
    bringers: Bringers, domain: str, request: DecodeRequest, frames: AsyncGenerator[TokenFrame, None]
) -> AsyncGenerator[TokenFrame, None]:
    """The frames of a request in a replica that keeps what it reads and writes in its cache (ICaRus, rule 8).

    The first one of a leg without a ticket says what another model had brought. KV that a ticket stood for,
    and that of generated tokens, is this model's, if it is nobody's: the next one may find it.
    """
    claim = bringers.claim(request.model, domain, request.token_ids)
    answers: defaultdict[int, list[int]] = defaultdict(list)
    try:
        async with contextlib.aclosing(frames):
            async for frame in frames:
                if frame.cached_tokens is not None:
                    brought = claim.found(frame.cached_tokens)
                    frame = msgspec.structs.replace(frame, cross_model_tokens=brought)
                for delta in frame.deltas:
                    answers[delta.index] += delta.token_ids
                yield frame
    finally:
        for tokens in answers.values():
            # The step that would write the last token's KV does not come.
            claim.wrote((*request.generated, *tokens[:-1]))
