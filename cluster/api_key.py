"""The key that our own commands send to a router that wants one."""

import os

VARIABLE = "HELIOSTAT_API_KEY"


def headers() -> dict[str, str]:
    """What goes with every request of `heliostat status` and `models`; nothing without a key."""
    key = os.environ.get(VARIABLE)
    return {"authorization": f"Bearer {key}"} if key else {}
