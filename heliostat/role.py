"""What a pool is for, and what names it."""

from enum import StrEnum


class Role(StrEnum):
    """The two roles of a module."""

    PREFILL = "prefill"
    DECODE = "decode"


PoolKey = tuple[Role, str]
"""A pool, by its role and name."""
