"""Segments of shared memory that a reader has mapped, kept because their owners reuse them.

Copying through a mapping whose pages are there runs at the speed of memory; making one costs as much as
the copy. So large segments are mapped once, known again by their inode, and the ones not read for longest
are let go when there are too many. A mapping lives for as long as somebody copies from it.
"""

import ctypes
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from kvtransfer.memory import address_of


class Mapping:
    """One segment's bytes, to be read."""

    def __init__(self, fd: int, size: int) -> None:
        self._map = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        self._address: int = np.frombuffer(self._map, dtype=np.uint8).ctypes.data
        self.size = size

    def copy(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill the views one after the other from `offset` on."""
        at = self._address + offset
        for view in into:
            # A foreign call lets go of the interpreter lock while it copies.
            ctypes.memmove(address_of(view), at, view.nbytes)
            at += view.nbytes


class Mappings:
    """The mappings of this process, at most `limit` bytes in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._mappings: OrderedDict[tuple[int, int], Mapping] = OrderedDict()

    def of(self, fd: int) -> Mapping:
        """The whole file behind `fd`. Raises OSError."""
        stat = os.fstat(fd)
        key = stat.st_dev, stat.st_ino
        with self._lock:
            mapping = self._mappings.pop(key, None)
            if mapping is None or mapping.size != stat.st_size:
                mapping = Mapping(fd, stat.st_size)
            self._mappings[key] = mapping
            while len(self._mappings) > 1 and sum(m.size for m in self._mappings.values()) > self._limit:
                self._mappings.popitem(last=False)
            return mapping
