"""What each request holds of its replica's KV space."""

from collections.abc import Callable, Sequence

from simulator.engine.job import Job
from simulator.engine.kv_space import KvSpace

KvListener = Callable[[Sequence[int], Sequence[int]], None]
"""Names of blocks that have come, and of those that have gone."""


class Holdings:
    """`KvSpace`, by request. Without `keeps_prefixes` nothing gets a name, and nothing is shared."""

    def __init__(self, space: KvSpace, *, keeps_prefixes: bool, on_kv: KvListener | None) -> None:
        self._space = space
        self._keeps_prefixes = keeps_prefixes
        self._on_kv = on_kv

    @property
    def free(self) -> int:
        """Tokens that can be claimed."""
        return self._space.free

    @property
    def in_use(self) -> int:
        """Tokens that requests hold."""
        return self._space.in_use

    def cached_tokens(self, names: Sequence[int]) -> int:
        """Tokens of a prompt that begins with these blocks which are here."""
        return self._space.matched(names) * self._space.block_tokens if self._keeps_prefixes else 0

    def enter(self, job: Job, reserve: int) -> bool:
        """Takes room for the request's KV, if so many tokens are free beside it. False: nothing is taken."""
        space = self._space
        names = job.blocks[: space.matched(job.blocks)] if self._keeps_prefixes else ()
        private = job.context - len(names) * space.block_tokens
        if private + space.idle_in(names) + reserve > space.free:
            return False
        space.hold(names)
        space.claim(private)
        job.held, job.private = names, private
        self.tell()
        return True

    def shared_tokens(self, job: Job) -> int:
        """Tokens that it holds in named blocks."""
        return len(job.held) * self._space.block_tokens

    def grow(self, tokens: int) -> None:
        """Requests take so many private tokens more, which they have counted themselves."""
        self._space.claim(tokens)

    def publish(self, job: Job, names: tuple[int, ...]) -> None:
        """The blocks beyond those that it holds are full and computed: others may share them."""
        new_names = names[len(job.held) :] if self._keeps_prefixes else ()
        if new_names:
            added = self._space.publish(new_names)
            job.private -= len(new_names) * self._space.block_tokens
            job.held = names
            self.tell(added)

    def leave(self, job: Job) -> None:
        """Holds nothing any more; what has a name stays until its room is needed."""
        self._space.give_back(job.private)
        self._space.release(job.held)
        job.private, job.held = 0, ()

    def tell(self, added: Sequence[int] = ()) -> None:
        """Says which names have come and gone since the last time."""
        dropped = self._space.take_dropped()
        if self._on_kv is not None and (added or dropped):
            self._on_kv(added, dropped)
