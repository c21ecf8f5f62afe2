"""One kept HTTP/1.1 connection that streams completions, at the least cost for a token.

While a stream runs it only keeps what the socket gives; chunks, events and the usage are read once the stream
has ended. Tokens are counted by the usage that the server reports at the end of each stream, because an event
may carry several. Times are seconds of this process's `perf_counter`.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import cast

from heliostat.errors import HeliostatError

REQUEST_S = 120.0
"""For one whole request; a longer one hangs."""

LAST_CHUNK = b"\r\n0\r\n\r\n"


class LoadError(HeliostatError):
    """A request that failed; the message is short and the same for all of its kind, so it can be counted."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One stream that ended well. `events` are those that carry tokens."""

    sent_s: float
    first_s: float
    last_s: float
    tokens: int
    events: int

    @property
    def ttft_ms(self) -> float:
        """From sending the request to the first byte of the body."""
        return (self.first_s - self.sent_s) * 1000

    @property
    def latency_ms(self) -> float:
        """From sending the request to its last byte."""
        return (self.last_s - self.sent_s) * 1000

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first, or None for a single token."""
        return (self.last_s - self.first_s) * 1000 / (self.tokens - 1) if self.tokens > 1 else None

    def tokens_between(self, begin_s: float, end_s: float) -> float:
        """Tokens in a window, as if they came evenly between the first byte and the last."""
        overlap_s = min(self.last_s, end_s) - max(self.first_s, begin_s)
        duration_s = self.last_s - self.first_s
        if duration_s <= 0:
            return float(self.tokens) if begin_s <= self.last_s <= end_s else 0.0
        return self.tokens * max(0.0, overlap_s) / duration_s


class StreamProtocol(asyncio.Protocol):
    """One kept connection; it carries one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._ended: asyncio.Future[None] | None = None
        self._first_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if not self._first_s:
            self._begin()
        # A JSON body has no bare carriage return, so only the last chunk can look like this; it may come
        # in pieces.
        if data.endswith(LAST_CHUNK) or (
            len(data) < len(LAST_CHUNK) and b"".join(self._parts[-len(LAST_CHUNK) :]).endswith(LAST_CHUNK)
        ):
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end()

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def request(self, payload: bytes) -> Reply:
        """Send one request and wait for the end of its stream. Raises LoadError; then it is not open."""
        if self._transport is None:
            raise LoadError("the server closed the connection between two requests")
        self._parts.clear()
        self._first_s = 0.0
        self._ended = asyncio.get_running_loop().create_future()
        sent_s = time.perf_counter()
        self._transport.write(payload)
        try:
            await asyncio.wait_for(self._ended, REQUEST_S)
            last_s = time.perf_counter()
            tokens, events = read_answer(b"".join(self._parts))
        except TimeoutError:
            self.close()
            raise LoadError(f"no end after {REQUEST_S:.0f} s") from None
        except LoadError:
            self.close()
            raise
        finally:
            self._ended = None
        return Reply(sent_s, self._first_s, last_s, tokens, events)

    def _begin(self) -> None:
        """Take the time of the first byte after the head; an answer that is no stream ends here."""
        head, blank, body = b"".join(self._parts).partition(b"\r\n\r\n")
        if not blank:
            return
        if b"\r\ntransfer-encoding: chunked" not in head.lower():
            self._end()  # an error with a length, which `read_answer` names by its status
        elif body:
            self._first_s = time.perf_counter()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def read_answer(answer: bytes) -> tuple[int, int]:
    """Tokens by the usage, and events that carry tokens, of one complete HTTP answer. Raises LoadError."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise LoadError(f"HTTP {status[0].decode()}" if status else "the server closed the connection")
    if b"\r\ntransfer-encoding: chunked" not in head.lower():
        raise LoadError("the answer is no chunked stream")
    events = [event for event in _dechunked(body).split(b"\n\n") if event.startswith(b"data: ")]
    if not events or events[-1] != b"data: [DONE]":
        raise LoadError("the stream ended before [DONE]")
    try:
        last = json.loads(events[-2].removeprefix(b"data: ")) if len(events) > 1 else {}
        tokens = last["usage"]["completion_tokens"]
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError("the last chunk holds no usage") from error
    assert isinstance(tokens, int)
    # The usage rides on a chunk of its own, or on the last one that carries a token.
    return tokens, len(events) - (1 if last.get("choices") else 2)


def _dechunked(body: bytes) -> bytes:
    data = []
    position = 0
    while (line_end := body.find(b"\r\n", position)) >= 0:
        size = int(body[position:line_end], 16)
        data.append(body[line_end + 2 : line_end + 2 + size])
        position = line_end + 2 + size + 2
        if size == 0:
            break
    return b"".join(data)
