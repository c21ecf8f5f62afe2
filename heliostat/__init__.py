"""The ground floor, light to install: the client SDK, the spec, wire types and the error tree."""

from importlib import import_module
from typing import TYPE_CHECKING

from heliostat.version import __version__ as __version__

if TYPE_CHECKING:
    from heliostat.client import *  # noqa: F403
    from heliostat.client import __all__ as __all__


def __getattr__(name: str) -> object:
    """The client's names, imported when one is used: a server's processes are here for other things."""
    if name == "__all__" or not name.startswith("_"):
        client = import_module("heliostat.client")
        if name in ("__all__", *client.__all__):
            return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """With the client's names, for who presses tab."""
    return sorted({*globals(), *import_module("heliostat.client").__all__})
