"""What a vLLM engine tells of its prefix cache, in the router's names for prompt blocks (vLLM 0.32).

vLLM names a block by its own hash and tells its tokens when it is stored; the router's index names 32 tokens
by a hash chained from the KV domain (`PrefixIndex.hashes`). The engine publishes over a loopback socket.

What an adapter wrote is of a domain of its own (its name there is its digest, `deployments.vllm_lora`),
unless the base writes all KV (ICaRus): then no block is anybody's.

Not covered: the last, partly filled block of a prompt, of which vLLM knows nothing; salted blocks, whose KV
another prompt with the same tokens cannot use; several cache groups (sliding windows).
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import zmq
import zmq.asyncio

from heliostat.wire import Adapter, adapted_domain
from router.prefix_index import BLOCK_TOKENS, first_link, next_link

BlockHash = bytes | int
"""As vLLM names a block; ints with `VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES`."""

MAX_BLOCKS = 400_000
"""Blocks of vLLM that are followed, more than fit into most engines; the longest unused go first."""

OWN_MEDIUM = "GPU"
"""vLLM's word for the engine's own KV cache, also on CPUs. Another tier costs a load that nobody counts."""


class BlockStored(msgspec.Struct, tag=True):
    """`vllm.distributed.kv_events.BlockStored`: what we read of it."""

    block_hashes: tuple[BlockHash, ...]
    parent_block_hash: BlockHash | None
    token_ids: tuple[int, ...]
    block_size: int
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: tuple[tuple[object, ...] | None, ...] | None = None
    group_idx: int | None = None


class BlockRemoved(msgspec.Struct, tag=True):
    """`vllm.distributed.kv_events.BlockRemoved`: what we read of it."""

    block_hashes: tuple[BlockHash, ...]
    medium: str | None = None
    group_idx: int | None = None


class AllBlocksCleared(msgspec.Struct, tag=True):
    """`vllm.distributed.kv_events.AllBlocksCleared`."""


Event = BlockStored | BlockRemoved | AllBlocksCleared


class EventBatch(msgspec.Struct, array_like=True):
    """`vllm.distributed.kv_events.KVEventBatch`: the events of one engine step."""

    ts: float
    events: tuple[Event, ...]


_decoder = msgspec.msgpack.Decoder(EventBatch)


@dataclass(slots=True)
class _Block:
    """A block of vLLM, and where the chain of our names stands behind it.

    `copies` counts the places where vLLM keeps it: two prompts that were computed side by side have one
    each. `names` are our blocks that it holds a part of.
    """

    chain: int
    rest: tuple[int, ...] = ()
    """Tokens since the last whole block of ours."""
    before: "_Block | None" = None
    """The block before it, when it begins inside one of ours."""
    ends_one: bool = False
    """Whether a block of ours ends in it: what is not whole then began here, too."""
    copies: int = 0
    names: set[int] = field(default_factory=set)

    def parts_before(self) -> "Iterator[_Block]":
        """The blocks that hold the beginning of the block of ours in which this one begins."""
        part = self.before
        while part is not None:
            yield part
            part = None if part.ends_one else part.before


class Translator:
    """vLLM's events as blocks of ours that came and went, whatever vLLM's block size is.

    A block of ours is kept while all of its parts are. Blocks whose parent is unknown are ignored: their
    place in a prompt is unknown, too.
    """

    def __init__(self, domain: str, max_blocks: int = MAX_BLOCKS, one_writer: bool = False) -> None:
        self._domain = domain
        self._one_writer = one_writer
        self._roots: dict[str, _Block] = {}
        self._max_blocks = max_blocks
        self._blocks: OrderedDict[BlockHash, _Block] = OrderedDict()

    def __len__(self) -> int:
        """Blocks of vLLM that are followed."""
        return len(self._blocks)

    def translate(self, events: Sequence[Event]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which blocks of ours are there after these events, and which are not any more."""
        changed: dict[int, bool] = {}
        for event in events:
            match event:
                case BlockStored():
                    self._stored(event, changed)
                case BlockRemoved():
                    self._removed(event, changed)
                case AllBlocksCleared():
                    self._cleared(changed)
        added = tuple([name for name, kept in changed.items() if kept])
        return added, tuple([name for name, kept in changed.items() if not kept])

    def clear(self) -> tuple[int, ...]:
        """Events were lost: nothing that was known is certain. The blocks of ours that were kept."""
        changed: dict[int, bool] = {}
        self._cleared(changed)
        return tuple(changed)

    def _stored(self, event: BlockStored, changed: dict[int, bool]) -> None:
        if event.medium not in (None, OWN_MEDIUM) or event.group_idx:
            return
        writer = "" if self._one_writer else event.lora_name or ""
        if any(key != writer for keys in event.extra_keys or () for key in keys or ()):
            return
        size = event.block_size
        if len(event.token_ids) != len(event.block_hashes) * size:
            return
        parent = self._parent(event.parent_block_hash, writer)
        for number, block_hash in enumerate(event.block_hashes):
            if parent is None:
                return
            block = self._blocks.get(block_hash)
            if block is None:
                block = self._append(parent, event.token_ids[number * size : (number + 1) * size], changed)
                self._blocks[block_hash] = block
            else:
                self._blocks.move_to_end(block_hash)
            block.copies += 1
            parent = block
        while len(self._blocks) > self._max_blocks:
            _drop(self._blocks.popitem(last=False)[1], changed)

    def _parent(self, block_hash: BlockHash | None, writer: str) -> _Block | None:
        if block_hash is None:
            return self._root(writer)
        if block := self._blocks.get(block_hash):
            self._blocks.move_to_end(block_hash)
        return block

    def _root(self, writer: str) -> _Block:
        root = self._roots.get(writer)
        if root is None:
            adapter = Adapter(writer, "") if writer else None
            root = self._roots[writer] = _Block(first_link(adapted_domain(self._domain, adapter)))
        return root

    def _append(self, parent: _Block, token_ids: tuple[int, ...], changed: dict[int, bool]) -> _Block:
        tokens = parent.rest + token_ids
        whole = len(tokens) - len(tokens) % BLOCK_TOKENS
        before = parent if parent.rest else None
        block = _Block(parent.chain, tokens[whole:], before, ends_one=whole > 0)
        for start in range(0, whole, BLOCK_TOKENS):
            block.chain = next_link(block.chain, tokens[start : start + BLOCK_TOKENS])
            block.names.add(block.chain)
            _mark(block.chain, True, changed)
            if not start:
                for part in block.parts_before():
                    part.names.add(block.chain)
        return block

    def _removed(self, event: BlockRemoved, changed: dict[int, bool]) -> None:
        if event.medium not in (None, OWN_MEDIUM) or event.group_idx:
            return
        for block_hash in event.block_hashes:
            block = self._blocks.get(block_hash)
            if block is None:
                continue
            block.copies -= 1
            if not block.copies:
                del self._blocks[block_hash]
                _drop(block, changed)

    def _cleared(self, changed: dict[int, bool]) -> None:
        for block in self._blocks.values():
            for name in block.names:
                _mark(name, False, changed)
        self._blocks.clear()


def _drop(block: _Block, changed: dict[int, bool]) -> None:
    for name in block.names:
        _mark(name, False, changed)
    for part in block.parts_before():
        part.names -= block.names


def _mark(name: int, kept: bool, changed: dict[int, bool]) -> None:
    changed.pop(name, None)  # the order is that of the last change
    changed[name] = kept


class KvEventReader:
    """Listens to one engine's events and tells `on_kv` which blocks of ours are there now, and which are not.

    The engine connects to us, so no event is lost between its start and ours. Only messages with our
    topic count: it is drawn anew for every engine, and whoever else can reach the port does not know it.
    """

    def __init__(
        self, domain: str, on_kv: Callable[[Sequence[int], Sequence[int]], None], one_writer: bool = False
    ) -> None:
        self._translator = Translator(domain, one_writer=one_writer)
        self._on_kv = on_kv
        self.topic = secrets.token_hex(16)
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, self.topic.encode())
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self._next = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen on the running event loop."""
        self._task = asyncio.create_task(self._read())

    def close(self) -> None:
        """Hear no more; on the event loop that listened."""
        if self._task is not None:
            self._task.cancel()
        self._socket.close(linger=0)
        self._context.term()

    async def _read(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            if len(frames) == 3:
                self.take(int.from_bytes(frames[1], "big"), frames[2])

    def take(self, number: int, body: bytes) -> None:
        """One message of the engine, by its number: a gap means that events were lost."""
        lost = self._translator.clear() if number != self._next else ()
        self._next = number + 1
        try:
            batch = _decoder.decode(body)
        except msgspec.DecodeError:
            # An event of a kind that this release of vLLM does not publish by itself; the next number
            # shows as a gap.
            self._next = -1
            batch = EventBatch(0.0, ())
        added, removed = self._translator.translate(batch.events)
        if lost:
            again = frozenset(added)
            removed = (*(name for name in lost if name not in again), *removed)
        if added or removed:
            self._on_kv(added, removed)
