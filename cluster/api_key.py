"""The key that our own commands send to a router that wants one."""

import os

VARIABLE = "HELIOSTAT_API_KEY"


def key() -> str | None:
    """None: there is none, and most routers want none."""
    return os.environ.get(VARIABLE) or None


def headers() -> dict[str, str]:
    """What goes with every request of `heliostat status` and `models`; nothing without a key."""
    told = key()
    return {"authorization": f"Bearer {told}"} if told else {}
