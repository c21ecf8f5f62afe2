"""The ground floor, light to install: the client SDK, the spec, wire types and the error tree."""

from importlib import import_module
from typing import TYPE_CHECKING

from heliostat.version import __version__ as __version__

if TYPE_CHECKING:
    from heliostat.client import *  # noqa: F403


def __getattr__(name: str) -> object:
    """The client's names, imported when one is used: a server's processes are here for other things."""
    if not name.startswith("_"):
        client = import_module("heliostat.client")
        if name in client.__all__:
            return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
