"""One region of memory for all KV that an owner keeps: reserved once, registered once, reused for ever."""

import ctypes
import mmap
from bisect import insort
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes `[start, start + size)` of an arena."""

    start: int
    size: int


class Arena:
    """Anonymous memory and the list of its free spans; first fit, neighbours joined when freed.

    The kernel gives a page at its first use, so a large arena costs what was used of it at most.
    """

    ALIGNMENT = 4096

    def __init__(self, num_bytes: int) -> None:
        size = -(-num_bytes // self.ALIGNMENT) * self.ALIGNMENT
        self._map = mmap.mmap(-1, size)
        self.memory = memoryview(self._map)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.size = size
        self._free = [Span(0, size)]

    @property
    def free_bytes(self) -> int:
        return sum(span.size for span in self._free)

    def reserve(self, num_bytes: int) -> Span | None:
        """A span of at least that many bytes, or None when no free span is large enough."""
        size = -(-max(1, num_bytes) // self.ALIGNMENT) * self.ALIGNMENT
        for index, span in enumerate(self._free):
            if span.size >= size:
                rest = Span(span.start + size, span.size - size)
                self._free[index : index + 1] = [rest] if rest.size else []
                return Span(span.start, size)
        return None

    def free(self, span: Span) -> None:
        """Give a span back."""
        insort(self._free, span)
        joined: list[Span] = []
        for each in self._free:
            if joined and joined[-1].start + joined[-1].size == each.start:
                joined[-1] = Span(joined[-1].start, joined[-1].size + each.size)
            else:
                joined.append(each)
        self._free = joined
