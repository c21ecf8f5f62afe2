"""The key that our own commands send to a router that wants one: the client's."""

from heliostat.client.settings import API_KEY_VARIABLE as VARIABLE
from heliostat.client.settings import environment_key

__all__ = ["VARIABLE", "headers"]


def headers() -> dict[str, str]:
    """What goes with every request of `heliostat status` and `models`; nothing without a key."""
    key = environment_key()
    return {"authorization": f"Bearer {key}"} if key else {}
