"""The engine's KV memory as raw blocks: block ids in, memory views out.

Blocks are opaque: vLLM's CPU attention packs K transposed inside a block (its tensor shape does not
say so), so a block is only ever copied whole.
"""

import ctypes
import mmap
from collections.abc import Iterator, Mapping, Sequence

import torch

from heliostat.errors import TransportError


class BlockMemory:
    """KV tensors of all layers, each `[num_blocks, …]` with one contiguous run of bytes per block.

    Raises TransportError for a tensor that is not on the CPU or not block-major.
    """

    def __init__(self, caches: Mapping[str, torch.Tensor], packing: str) -> None:
        self._layers: list[tuple[memoryview, int]] = []
        self._caches = dict(caches)  # the views below hold addresses, not references
        shapes, seen = set(), set()
        for name, tensor in caches.items():
            if tensor.data_ptr() in seen:
                continue  # a layer that only reads another one's KV (ICaRus) has no memory of its own
            seen.add(tensor.data_ptr())
            block = tensor[0]
            if tensor.device.type != "cpu" or not block.is_contiguous() or tensor.stride(0) != block.numel():
                raise TransportError(
                    f"KV of layer {name} is {tensor.device.type} {tuple(tensor.shape)} stride "
                    f"{tuple(tensor.stride())}; this transport reads block-major KV in CPU memory"
                )
            block_bytes = block.numel() * tensor.element_size()
            raw = (ctypes.c_char * (block_bytes * tensor.shape[0])).from_address(tensor.data_ptr())
            self._layers.append((memoryview(raw).cast("B"), block_bytes))
            shapes.add((str(tensor.dtype), tuple(block.shape)))
        if len(shapes) != 1:
            raise TransportError(f"layers differ in KV layout: {sorted(map(str, shapes))}")
        dtype, shape = shapes.pop()
        self.layout = f"{dtype} {shape} x{len(self._layers)} {packing}"

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def bytes_per_block(self) -> int:
        """Over all layers."""
        return sum(block_bytes for _, block_bytes in self._layers)

    @property
    def regions(self) -> list[memoryview]:
        """The memory of each layer, for transports that want to know it before."""
        return [memory for memory, _ in self._layers]

    def blocks(self, block_ids: Sequence[int]) -> list[list[memoryview]]:
        """`views` of every layer."""
        return [self.views(layer, block_ids) for layer in range(self.num_layers)]

    def views(self, layer: int, block_ids: Sequence[int]) -> list[memoryview]:
        """The blocks' memory in the order of `block_ids`; neighbours come as one view."""
        memory, block_bytes = self._layers[layer]
        return [memory[first * block_bytes : (last + 1) * block_bytes] for first, last in _runs(block_ids)]


def address_of(memory: memoryview | mmap.mmap) -> int:
    """Where writable memory begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def copy_into(memory: memoryview | mmap.mmap, offset: int, buffers: Sequence[memoryview]) -> None:
    """Copy the views one after the other; a foreign call lets go of the interpreter lock meanwhile."""
    at = address_of(memory) + offset
    for view in buffers:
        ctypes.memmove(at, address_of(view), view.nbytes)
        at += view.nbytes


def _runs(block_ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Maximal runs of ascending neighbours, as (first, last)."""
    first = last = None
    for block_id in block_ids:
        if first is not None and last is not None and block_id == last + 1:
            last = block_id
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = block_id
    if first is not None and last is not None:
        yield first, last
