"""Server-sent events out of bytes, however these were cut."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator

from heliostat.errors import UnexpectedAnswerError

LONGEST_EVENT = 16 * 2**20
"""Bytes of one event that are kept at most: a server that never ends a line must not fill the memory."""

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventReader:
    """Gives the data of one event after the other.

    It is decoded by whole events, so a character that two reads share is never split.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._data: list[bytes] = []
        self._size = 0
        self._is_ping = False
        self._is_first = True

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The events that this chunk ends. Raises UnexpectedAnswerError for one that is far too long."""
        self._rest += chunk
        if self._is_first:
            self._is_first = len(self._rest) < len(BOM_UTF8)
            self._rest = self._rest.removeprefix(BOM_UTF8)
        begin = 0
        try:
            while found := _LINE_END.search(self._rest, max(begin, self._searched)):
                if found.end() == len(self._rest) and found.group() == b"\r":
                    break  # its \n may be in the next chunk
                line = bytes(self._rest[begin : found.start()])
                begin = self._searched = found.end()
                if (data := self._take(line)) is not None:
                    yield data
        finally:  # who reads an event may raise: it was given all the same
            del self._rest[:begin]
            self._searched = 0
        self._searched = max(len(self._rest) - 1, 0)
        if self._size + len(self._rest) > LONGEST_EVENT:
            raise UnexpectedAnswerError(f"an event of the stream is longer than {LONGEST_EVENT} bytes")

    def end(self) -> Iterator[str]:
        """What was left when the connection ended, as servers forget the last empty line."""
        for line in (bytes(self._rest).rstrip(b"\r"), b""):
            if (data := self._take(line)) is not None:
                yield data
        self._rest.clear()

    def _take(self, line: bytes) -> str | None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"event":
                self._is_ping = value.strip() == b"ping"
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._size += len(value)
            return None  # comments, which keep a connection open as pings do, and fields that nobody uses
        data, is_ping = self._data, self._is_ping
        self._data, self._size, self._is_ping = [], 0, False
        return b"\n".join(data).decode("utf-8", "replace") if data and not is_ping else None
