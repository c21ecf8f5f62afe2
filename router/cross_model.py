"""Which model brought a prompt prefix to a replica: what sharing saves, as a count of tokens."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from router.prefix_index import BLOCK_TOKENS, first_link

MAX_BLOCKS = 131_072
"""About four million prompt tokens, in some 25 MB."""


class Bringers:
    """Block of a prompt, on a replica -> the model that had it computed there; the least recently used goes
    first.

    A replica's answer says how much of a prompt it had, not since when. Of several models that ask about one
    context at the same time, the one whose prefill computes it may well answer last. So a block is somebody's
    from the moment at which a replica is chosen that does not hold it (`expected`), until an answer says who
    has had it computed (`arrived`).

    It knows of this router's requests alone, and counts too little rather than too much: a block that came
    otherwise is nobody's. Serve may call from its router's thread, so there is a lock.
    """

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._lock = threading.Lock()
        self._models: OrderedDict[int, str] = OrderedDict()
        self._expected: OrderedDict[int, str] = OrderedDict()
        self._followed: frozenset[str] = frozenset()

    def __len__(self) -> int:
        """Blocks whose bringer is known."""
        return len(self._models)

    def follow(self, models: Iterable[str]) -> None:
        """Only these models have somebody to share with; what others bring is not noted."""
        self._followed = frozenset(models)

    def follows(self, model: str) -> bool:
        """Whether that model has somebody to share with."""
        return model in self._followed

    def expected(self, replica: str, model: str, blocks: Sequence[int], held_tokens: int) -> None:
        """The prompt of `blocks` (`PrefixIndex.hashes`) goes there, which is taken to hold so many of its
        tokens; the rest is going to be computed."""
        if not self.follows(model):
            return
        held = -(-held_tokens // BLOCK_TOKENS)  # of a prompt that is there whole, the end of a block too
        with self._lock:
            for block in _there(replica, blocks[held:]):
                if block not in self._models:
                    self._expected.setdefault(block, model)
            self._trim()

    def arrived(
        self, replica: str, model: str, blocks: Sequence[int], num_tokens: int, cached_tokens: int
    ) -> int:
        """The prompt's KV is there: how many of its first `cached_tokens` tokens another model has brought.

        The rest of the `num_tokens` was computed now, for this model.
        """
        models, expected, cross_model = self._models, self._expected, 0
        with self._lock:
            for number, block in enumerate(_there(replica, blocks)):
                start = number * BLOCK_TOKENS
                end = min(start + BLOCK_TOKENS, num_tokens)
                bringer = models.get(block) or expected.get(block, model)
                if bringer != model and cached_tokens > start:
                    cross_model += min(cached_tokens, end) - start
                elif expected.get(block) == model:
                    del expected[block]  # it is known now; and if it was there already, it is nobody's
                if cached_tokens < end:
                    models[block] = model
                if block in models:
                    models.move_to_end(block)
            self._trim()
        return cross_model

    def _trim(self) -> None:
        for known in (self._models, self._expected):
            for _ in range(len(known) - self._max_blocks):
                known.popitem(last=False)


def _there(replica: str, blocks: Iterable[int]) -> Iterator[int]:
    """The names of these blocks on that replica."""
    seed = first_link(replica)
    return (hash((seed, block)) for block in blocks)
