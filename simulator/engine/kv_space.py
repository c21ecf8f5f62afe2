"""The KV space of one replica: named blocks, which requests share and which stay as a cache, and the rest.

As vLLM's block pool does it: a full block has a name, is held by those who use it, and stays when nobody
does, until its room is needed; the least recently used goes first. Everything else (partly filled blocks,
and whatever a replica must not share) is private to its request and counts by the token.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class KvSpace:
    """`capacity` in tokens; a named block takes `block_tokens` of it."""

    def __init__(self, capacity: int, block_tokens: int) -> None:
        self.capacity = capacity
        self.block_tokens = block_tokens
        self._private = 0
        self._held: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._dropped: list[int] = []

    @property
    def in_use(self) -> int:
        """Tokens that requests hold; what is only cached does not count."""
        return self._private + len(self._held) * self.block_tokens

    @property
    def free(self) -> int:
        """Tokens that can be claimed, cached ones included; below 0 after growth without asking."""
        return self.capacity - self.in_use

    @property
    def cached_blocks(self) -> int:
        """Named blocks, held or not."""
        return len(self._held) + len(self._idle)

    def matched(self, names: Sequence[int]) -> int:
        """How many of these blocks, from the first one on, are here."""
        held, idle = self._held, self._idle
        for number, name in enumerate(names):
            if name not in held and name not in idle:
                return number
        return len(names)

    def hold(self, names: Sequence[int]) -> None:
        """These blocks, which are here, stay until `release`."""
        held, idle = self._held, self._idle
        for name in names:
            users = held.get(name, 0)
            if not users:
                del idle[name]
            held[name] = users + 1

    def idle_in(self, names: Sequence[int]) -> int:
        """Tokens of those that are here and held by nobody: holding them takes that much of `free`."""
        return sum([name in self._idle for name in names]) * self.block_tokens

    def claim(self, tokens: int) -> None:
        """So many private tokens more. What is only cached makes room."""
        self._private += tokens
        self._evict()

    def give_back(self, tokens: int) -> None:
        """So many private tokens less."""
        self._private -= tokens

    def publish(self, names: Iterable[int]) -> list[int]:
        """Private blocks are full and computed: they get names, and are held. Returns the new names.

        One that somebody else has computed meanwhile is held there, and the own copy is given back.
        """
        held, idle, new = self._held, self._idle, []
        for name in names:
            self._private -= self.block_tokens
            users = held.get(name, 0)
            if not users:
                if name in idle:
                    del idle[name]
                else:
                    new.append(name)
            held[name] = users + 1
        self._evict()
        return new

    def release(self, names: Sequence[int]) -> None:
        """Nobody holds them on behalf of this request any more. Of a chain, the end leaves first."""
        held, idle = self._held, self._idle
        for name in reversed(names):
            users = held[name] - 1
            if users:
                held[name] = users
            else:
                del held[name]
                idle[name] = None

    def take_dropped(self) -> list[int]:
        """Names that have left since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def _evict(self) -> None:
        excess = self.in_use + len(self._idle) * self.block_tokens - self.capacity
        while excess > 0 and self._idle:
            self._dropped.append(self._idle.popitem(last=False)[0])
            excess -= self.block_tokens
