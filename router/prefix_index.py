"""Which replicas hold which prompt prefixes, approximately and in bounded memory.

A prompt is cut into blocks of tokens, and each block is named by a hash chained from the KV domain through
all blocks before it: same domain and same tokens give the same name, whichever model asks. So one index
serves all models of a domain, and the second model of an agent finds the prefix of the first.

Not covered: proof. Hashes are Python's own hash of int tuples, the same in every process (only strings are
hashed with a random seed), and may collide: a collision costs time in a wrong choice, never an answer.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK_TOKENS = 32


def first_link(domain: str) -> int:
    """Where the chain of a KV domain's block hashes begins."""
    return int.from_bytes(hashlib.blake2b(domain.encode(), digest_size=7).digest(), "little")


def adapter_name(digest: str) -> int:
    """What stands for an adapter among the blocks: a replica that holds it need not load it."""
    return first_link(f"adapter {digest}")


def next_link(parent: int, tokens: tuple[int, ...]) -> int:
    """The hash of a block of these tokens behind the block `parent`."""
    return hash((parent, tokens))


def chain(parent: int, token_ids: Sequence[int], size: int) -> tuple[int, ...]:
    """One hash per block behind the block `parent`, the last, partly filled one included."""
    links = []
    for start in range(0, len(token_ids), size):
        parent = next_link(parent, tuple(token_ids[start : start + size]))
        links.append(parent)
    return tuple(links)


class PrefixIndex:
    """Block hash -> the rows (replicas) that hold it, one bit each; the least recently used block goes first.

    A row number stands for one replica for ever: after `forget` it must not be added again.
    """

    def __init__(self, max_blocks: int, block_size: int = BLOCK_TOKENS) -> None:
        self.max_blocks = max_blocks
        self.block_size = block_size
        self._holders: OrderedDict[int, int] = OrderedDict()
        self._seeds: dict[str, int] = {}
        self._bits: list[int] = []
        self._known = -1  # all rows but the forgotten ones

    def __len__(self) -> int:
        """Blocks in the index."""
        return len(self._holders)

    def hashes(self, domain: str, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """One hash per block of the prompt, the last, partly filled one included.

        A replica shares KV by whole blocks, or all of it when the very same prompt comes again; the hash
        of the rest stands for that.
        """
        parent = self._seeds.get(domain)
        if parent is None:
            parent = self._seeds[domain] = first_link(domain)
        return chain(parent, token_ids, self.block_size)

    def depths(self, hashes: Sequence[int], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """For each of the rows, how many blocks from the first on it holds without a gap."""
        runs: list[int] = []
        widths: list[int] = []
        holders, holding, before, width = self._holders, self._known, -1, 0
        for block in hashes:
            mask = holders.get(block, 0)
            # Blocks that were added together share their mask, so most steps end here.
            if mask is not before:
                still = holding & mask
                if still != holding:
                    if width:
                        runs.append(holding)
                        widths.append(width)
                    width = 0
                    holding = still
                before = mask
                if not still:
                    break
            width += 1
        if width:
            runs.append(holding)
            widths.append(width)
        if not runs or not len(rows):
            return np.zeros(len(rows))
        num_bytes = max(int(rows.max()) // 8 + 1, (runs[0].bit_length() + 7) // 8)
        packed = b"".join([run.to_bytes(num_bytes, "little") for run in runs])
        bits = np.unpackbits(
            np.frombuffer(packed, np.uint8).reshape(len(runs), num_bytes), axis=1, bitorder="little"
        )
        if len(runs) == 1:
            held: NDArray[np.float64] = widths[0] * bits[0][rows].astype(np.float64)
            return held
        depths = np.array(widths, np.float32) @ bits.astype(np.float32)
        return depths[rows].astype(np.float64)

    def add(self, row: int, hashes: Sequence[int]) -> None:
        """That replica holds these blocks now, or will soon; all of them count as just used."""
        holders, bit = self._holders, self._bit(row)
        before, merged = 0, bit
        # The last block first: of a chain, the end must leave before its beginning.
        for block in reversed(hashes):
            mask = holders.get(block)
            if mask is None:
                holders[block] = bit
                continue
            if not mask & bit:
                if mask is not before:
                    before, merged = mask, mask | bit
                holders[block] = merged
            holders.move_to_end(block)
        self._trim()

    def removed(self, row: int, hashes: Iterable[int]) -> None:
        """That replica has dropped these blocks."""
        holders, bit = self._holders, self._bit(row)
        for block in hashes:
            mask = holders.get(block, 0)
            if mask == bit:
                del holders[block]
            elif mask & bit:
                holders[block] = mask ^ bit

    def forget(self, row: int) -> None:
        """Nothing that this replica held counts any more."""
        self._known &= ~self._bit(row)

    def clear(self) -> None:
        """As new: all row numbers may be given out again."""
        self._holders.clear()
        self._known = -1

    def resize(self, max_blocks: int) -> None:
        """Another bound; what is too much now is dropped."""
        self.max_blocks = max_blocks
        self._trim()

    def _trim(self) -> None:
        holders = self._holders
        for _ in range(len(holders) - self.max_blocks):
            holders.popitem(last=False)

    def _bit(self, row: int) -> int:
        """The mask of one row, always the same object: a million blocks share it."""
        bits = self._bits
        while len(bits) <= row:
            bits.append(1 << len(bits))
        return bits[row]
