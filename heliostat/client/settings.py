"""What a client is made with, the same for both."""

import math
import os
from collections.abc import Mapping

import httpx

from heliostat.client.header_lines import merged
from heliostat.errors import HeliostatError
from heliostat.version import __version__

API_KEY_VARIABLE = "HELIOSTAT_API_KEY"
KEPT_ALIVE = 100
"""Idle connections that are kept. Any number may be open: a context is asked many things at once."""


def root_of(base_url: str) -> str:
    """Without the `/v1` that other clients want. Raises HeliostatError for what is no address."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise HeliostatError(f"base_url is {base_url!r}, which is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise HeliostatError(f"base_url is {base_url!r}; give an address like http://127.0.0.1:8000")
    return base_url.rstrip("/").removesuffix("/v1").rstrip("/")


def headers_of(api_key: str | None, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Of every request. A key that is not given is the environment's; an empty one is none.

    Unpacked answers only: a packer on the way would hold back a stream.
    """
    found = {"accept-encoding": "identity", "user-agent": f"heliostat-client/{__version__}"}
    key = environment_key() if api_key is None else api_key
    if key:
        found["authorization"] = f"Bearer {key}"
    return merged(found, headers or {})


def environment_key() -> str:
    """The API key that the environment names, or ""."""
    return os.environ.get(API_KEY_VARIABLE, "")


def seconds(name: str, value: float) -> float:
    """A time that is waited for. Raises HeliostatError for one without an end, or that is over already."""
    if not 0 < value < math.inf:
        raise HeliostatError(f"{name} is {value}; give it seconds, more than 0, like 2.5")
    return value


def limits() -> httpx.Limits:
    """Of the connection pool."""
    return httpx.Limits(max_connections=None, max_keepalive_connections=KEPT_ALIVE)


def new_session() -> str:
    """A name that no other context has."""
    return os.urandom(8).hex()
