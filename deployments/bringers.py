"""Which model brought a block of KV to a replica's prefix cache: what sharing saves, as a count of tokens."""

import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from heliostat.wire import DecodeRequest, TokenFrame
from router.prefix_index import BLOCK_TOKENS, chain, first_link

MAX_BLOCKS = 131_072
"""About four million tokens, in some 25 MB; so much again for claims."""

NOBODY = ""
"""The bringer of a block that came otherwise: it was there, and none that is known had it written."""


class Bringers:
    """Block of KV (as in `PrefixIndex.hashes`) -> the model that had it written in this replica.

    An engine's answer says how much of a prompt it had, not since when. Of several models that ask about one
    context at the same time, the one whose prefill computes it may well answer last. So a block that nobody
    has brought is expected of the first prompt that comes with it, until an answer says who has had it
    computed.

    Only the replica can know: its requests come through several routers, and its engine tells it which
    blocks are gone. What it has not seen, or forgets beyond `max_blocks` (the least recently used go first),
    is nobody's; so is what a request may have left behind that failed. One event loop's.
    """

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._models: OrderedDict[int, str] = OrderedDict()
        self._expected: OrderedDict[int, Claim] = OrderedDict()

    def __len__(self) -> int:
        """Blocks that are somebody's, or expected of somebody."""
        return len(self._models) + len(self._expected)

    @contextlib.contextmanager
    def claim(self, model: str, domain: str, token_ids: tuple[int, ...]) -> Iterator["Claim"]:
        """A prompt has come for this model, for KV of that domain (`heliostat.wire.adapted_domain`).

        At the end nothing is expected of it any more; what it has left behind all the same is nobody's.
        """
        claim = Claim(self, model, domain, token_ids, chain(first_link(domain), token_ids, BLOCK_TOKENS))
        for block in claim.blocks:
            if block not in self._models:
                self._expected.setdefault(block, claim)
        self._trim()
        try:
            yield claim
        finally:
            for block in claim.blocks:
                if self._expected.get(block) is claim:
                    del self._expected[block]
                    self._models[block] = NOBODY

    def removed(self, blocks: Iterable[int]) -> None:
        """The engine has dropped these blocks; whoever computes them again has brought them."""
        for block in blocks:
            self._models.pop(block, None)

    def found(self, claim: "Claim", cached_tokens: int) -> int:
        """See `Claim.found`."""
        models, expected, cross_model = self._models, self._expected, 0
        # An engine computes a prompt's last token always, and with it a last block that it has.
        num_tokens = len(claim.token_ids)
        for number, block in enumerate(claim.blocks):
            start = number * BLOCK_TOKENS
            end = min(start + BLOCK_TOKENS, num_tokens)
            first = expected.get(block, claim)
            if models.get(block, first.model) not in (claim.model, NOBODY) and cached_tokens > start:
                cross_model += min(cached_tokens, end) - start
            if cached_tokens < end and not (block in models and end == start + BLOCK_TOKENS == num_tokens):
                models[block] = claim.model
            elif first is claim:
                models.setdefault(block, NOBODY)
            if block in models:
                models.move_to_end(block)
                expected.pop(block, None)
        self._trim()
        return cross_model

    def wrote(self, model: str, blocks: Sequence[int]) -> None:
        """These blocks are there now. Of those that nobody has brought, this model is the bringer."""
        for block in blocks:
            self._expected.pop(block, None)
            self._models[block] = self._models.get(block) or model
            self._models.move_to_end(block)
        self._trim()

    def _trim(self) -> None:
        for _ in range(len(self._models) - self._max_blocks):
            self._models.popitem(last=False)
        for _ in range(len(self._expected) - self._max_blocks):
            self._expected.popitem(last=False)


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """One request's prompt in a replica (`Bringers.claim`)."""

    bringers: Bringers
    model: str
    domain: str
    token_ids: tuple[int, ...]
    blocks: tuple[int, ...]

    def found(self, cached_tokens: int) -> int:
        """The engine had the prompt's first `cached_tokens` tokens and computed the rest: how many of them
        another model has brought."""
        return self.bringers.found(self, cached_tokens)

    def loaded(self) -> None:
        """The prompt's KV has come with a ticket. What of it nobody has brought is this model's."""
        self.bringers.wrote(self.model, self.blocks)

    def generated(self, token_ids: Sequence[int]) -> None:
        """The engine has kept the KV of these tokens behind the prompt: this model's, too."""
        whole = len(self.token_ids) // BLOCK_TOKENS
        parent = self.blocks[whole - 1] if whole else first_link(self.domain)
        rest = (*self.token_ids[whole * BLOCK_TOKENS :], *token_ids)
        if token_ids:
            self.bringers.wrote(self.model, chain(parent, rest, BLOCK_TOKENS))


async def noted(
    bringers: Bringers, domain: str, request: DecodeRequest, frames: AsyncGenerator[TokenFrame, None]
) -> AsyncGenerator[TokenFrame, None]:
    """The frames of a request in a replica that keeps what it reads and writes in its cache (ICaRus, rule 8).

    The first one of a leg without a ticket says what another model had brought. KV that a ticket stood for,
    and that of generated tokens, is this model's, if it is nobody's: the next one may find it.
    """
    answers: defaultdict[int, list[int]] = defaultdict(list)
    with bringers.claim(request.model, domain, request.token_ids) as claim:
        try:
            async with contextlib.aclosing(frames):
                async for frame in frames:
                    if frame.cached_tokens is not None:
                        brought = claim.found(frame.cached_tokens)
                        frame = msgspec.structs.replace(frame, cross_model_tokens=brought)
                    elif not answers:
                        claim.loaded()
                    for delta in frame.deltas:
                        answers[delta.index] += delta.token_ids
                    yield frame
        finally:
            for tokens in answers.values():
                # The step that would write the last token's KV does not come.
                claim.generated((*request.generated, *tokens[:-1]))
