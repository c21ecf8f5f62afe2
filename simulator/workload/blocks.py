"""Names of blocks (`simulator.workload.base`): how many a prompt has, and new ones that nothing else has."""


def num_blocks(tokens: int, block_tokens: int) -> int:
    """Blocks that so many tokens fill, the last, partly filled one included."""
    return -(-tokens // block_tokens)


class FreshNames:
    """Hands out numbers in order, each once, from `first` on. One per call of `Workload.sessions`."""

    def __init__(self, first: int = 0) -> None:
        self._next = first

    def take(self, count: int) -> tuple[int, ...]:
        begin = self._next
        self._next += count
        return tuple(range(begin, self._next))
