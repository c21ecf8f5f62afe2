"""Which model first computed a prompt prefix: what sharing a prefill pool saves, as a count of tokens."""

from collections import OrderedDict

from router.prefix_index import BLOCK_TOKENS, PrefixIndex

MAX_BLOCKS = 131_072
"""About four million prompt tokens, in some 25 MB."""


class FirstModels:
    """Prefix block of a prefill pool -> the model that computed it first; the least recently used goes first.

    It learns of a prefix when the request that computed it is over, and only from this router's requests.
    So it counts too little rather than too much: a block whose model is not known is nobody's.
    """

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        # Only for its names of blocks: nothing is added to it.
        self._blocks = PrefixIndex(0)
        self._models: OrderedDict[int, str] = OrderedDict()

    def __len__(self) -> int:
        """Blocks whose model is known."""
        return len(self._models)

    def cross_model_tokens(
        self, pool: str, model: str, token_ids: tuple[int, ...], cached_tokens: int
    ) -> int:
        """How many of the first `cached_tokens` tokens another model of the prefill pool has brought.

        The rest of `token_ids` is computed now, by this model.
        """
        models, num_tokens, cross_model = self._models, len(token_ids), 0
        hashes = self._blocks.hashes(pool, token_ids)
        for start, block in zip(range(0, num_tokens, BLOCK_TOKENS), hashes, strict=True):
            end = min(start + BLOCK_TOKENS, num_tokens)
            first = models.get(block)
            if first is not None:
                models.move_to_end(block)
                if first != model and cached_tokens > start:
                    cross_model += min(cached_tokens, end) - start
            elif cached_tokens < end:
                models[block] = model
        while len(models) > self._max_blocks:
            models.popitem(last=False)
        return cross_model
