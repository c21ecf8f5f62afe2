"""Rendezvous hashing: the same name for the same key in every router, without a word between them."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from router.policy.base import Column


class Rendezvous:
    """Scores names for a key. When a name leaves, only the keys move that were its own."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._hashes: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def scores(self, names: tuple[str, ...], key: str) -> Column:
        """From 0 to 1, one per name; the lowest one wins. Cheapest with the same tuple every time."""
        if names is not self._names:
            self._names = names
            self._hashes = np.array([_hash(name) for name in names], np.uint64)
        scores: Column = _mixed(self._hashes ^ np.uint64(_hash(key))) / 2.0**64
        return scores


def _hash(text: str) -> int:
    """64 bits, the same in every router."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer: every bit of the output depends on every bit of the input."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
