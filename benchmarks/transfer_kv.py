"""KV memory of two engines for the transfer benchmark: the geometry of Qwen3-8B, and scattered blocks."""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kvtransfer.memory import BlockMemory
from kvtransfer.transport import Buffers, KVHeader

SPARE = 1.25
"""KV memory holds more blocks than one prompt has, so that there is room to scatter them."""

LONGEST_RUN = 16
"""Neighbouring blocks in a row at most. A new engine has longer runs, a churned one shorter."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a model's KV; a block of one layer holds K and V."""

    num_layers: int = 36
    num_kv_heads: int = 8
    head_size: int = 128
    element_bytes: int = 2
    block_tokens: int = 32

    @property
    def token_bytes(self) -> int:
        """Over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size * self.element_bytes

    @property
    def block_bytes(self) -> int:
        """Over all layers."""
        return self.token_bytes * self.block_tokens

    def num_blocks(self, tokens: int) -> int:
        """Blocks that a handoff of a prompt carries: those of its first N-1 tokens."""
        return math.ceil((tokens - 1) / self.block_tokens)


QWEN3_8B = Geometry()


def scattered(num_blocks: int, seed: int) -> tuple[int, ...]:
    """`num_blocks` block ids of a pool `SPARE` times as large, in shuffled runs of 1 to `LONGEST_RUN`."""
    rng = random.Random(seed)
    pool = pool_blocks(num_blocks)
    runs: list[range] = []
    start = 0
    while start < pool:
        stop = min(pool, start + rng.randint(1, LONGEST_RUN))
        runs.append(range(start, stop))
        start = stop
    rng.shuffle(runs)
    return tuple(block for run in runs for block in run)[:num_blocks]


def pool_blocks(num_blocks: int) -> int:
    """How many blocks KV memory for prompts of `num_blocks` has."""
    return math.ceil(num_blocks * SPARE)


class EngineMemory:
    """What an engine holds: one region for each layer, every page of it faulted in."""

    def __init__(self, geometry: Geometry, num_blocks: int, seed: int) -> None:
        self.block_ids = scattered(num_blocks, seed)
        shape = (pool_blocks(num_blocks), 2, geometry.num_kv_heads, geometry.block_tokens, geometry.head_size)
        tensors = [torch.zeros(shape, dtype=torch.bfloat16) for _ in range(geometry.num_layers)]
        self._words = [tensor.view(torch.int64).flatten() for tensor in tensors]
        self._memory = BlockMemory({str(layer): tensor for layer, tensor in enumerate(tensors)}, "benchmark")
        self._geometry = geometry
        self.clear()

    def clear(self) -> None:
        """Zeros, written: fresh zeros are pages that nobody has faulted in."""
        for words in self._words:
            words.fill_(0)

    def fill(self) -> None:
        """Different bytes in every place of every layer."""
        count = 0
        for words in self._words:
            torch.arange(count, count + words.numel(), out=words)
            count += words.numel()

    @property
    def regions(self) -> list[memoryview]:
        """All memory of each layer."""
        return self._memory.regions

    def views(self) -> Sequence[Buffers]:
        """The prompt's blocks in every layer, made anew, as an engine does for every ticket."""
        return self._memory.blocks(self.block_ids)

    def header(self, digest: str) -> KVHeader:
        num_blocks = len(self.block_ids)
        return KVHeader(
            domain="benchmark",
            prefix_digest=digest,
            layout=self._memory.layout,
            num_tokens=num_blocks * self._geometry.block_tokens,
            num_blocks=num_blocks,
            num_layers=self._geometry.num_layers,
            num_bytes=num_blocks * self._geometry.block_bytes,
        )

    def checksum(self) -> str:
        """Of the prompt's blocks in their order."""
        digest = hashlib.sha256()
        for buffers in self.views():
            for view in buffers:
                digest.update(view)
        return digest.hexdigest()
