"""Connections of a load generator, any number of them.

httpcore's pool (1.0) looks at all of its connections for each request: with 128 of them, that took 7 to 11 ms
of CPU. Here each connection is a pool of its own, and the free ones are a stack: 0.6 ms, however many.
"""

from collections.abc import AsyncIterator, Callable
from urllib.request import getproxies, proxy_bypass

import httpx


def transport_for(url: str) -> httpx.AsyncBaseTransport | None:
    """None, httpx's own, where the environment names a proxy for that address."""
    parsed = httpx.URL(url)
    proxied = parsed.scheme in getproxies() and not proxy_bypass(parsed.host)
    return None if proxied else ManyConnections()


class ManyConnections(httpx.AsyncBaseTransport):
    """One connection for each request that is under way; they are kept for the next ones."""

    def __init__(self) -> None:
        self._ssl = httpx.create_ssl_context()
        self._all: list[httpx.AsyncHTTPTransport] = []
        self._free: list[httpx.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises what httpx raises."""
        connection = self._free.pop() if self._free else self._another()
        answered = False
        try:
            response = await connection.handle_async_request(request)
            answered = True
        finally:
            if not answered:
                self._free.append(connection)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Stream(response.stream, lambda: self._free.append(connection))
        return response

    async def aclose(self) -> None:
        """All connections."""
        for connection in self._all:
            await connection.aclose()

    def _another(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        self._all.append(httpx.AsyncHTTPTransport(verify=self._ssl, limits=limits))
        return self._all[-1]


class _Stream(httpx.AsyncByteStream):
    """A body; closing it frees its connection."""

    def __init__(self, body: httpx.AsyncByteStream, freed: Callable[[], None]) -> None:
        self._body, self._freed = body, freed

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            self._freed()
