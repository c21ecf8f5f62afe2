"""The messages of the channel and their form on the wire: four bytes of length, then msgpack.

Decoded into these types and nothing else (`msgspec`): what comes from the network is never unpickled.
A connection begins with a `Hello`; what follows is a `Batch`, at most one per engine step, or `KvEvents`.
"""

import struct
from typing import Final

import msgspec

from heliostat.errors import HeliostatError
from heliostat.wire import Load, TokenDelta, TokenFrame

MAX_MESSAGE: Final = 64 * 2**20
"""Bytes; a longer message is no message of ours."""

MAX_HASHES: Final = 4096
"""Of one `KvEvents`: a router takes them in within about a millisecond, and tokens are not held up."""

_LENGTH: Final = struct.Struct("!I")


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """New tokens of one stream. `total` counts the leg's tokens so far, these included: a loss shows."""

    stream: int
    total: int
    deltas: tuple[TokenDelta, ...]
    finished: bool = False
    load_ms: float | None = None
    cached_tokens: int | None = None
    cross_model_tokens: int = 0


class Batch(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """What one engine step produced for one router, and the replica's load after it."""

    load: Load
    frames: tuple[Frame, ...] = ()


class Hello(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Who calls; `secret` came through Ray, so whoever knows it is one of ours."""

    secret: str
    replica: str


class KvEvents(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Prompt blocks (`PrefixIndex.hashes`) that the replica has dropped, and those that it keeps since."""

    added: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()


Message = Hello | Batch | KvEvents

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Message)


class ChannelError(HeliostatError):
    """Bytes on a channel that are no message."""


def encode(message: Message) -> bytes:
    """One message with its length in front."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Splitter:
    """Bytes as they arrive, cut into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now. Raises ChannelError."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_MESSAGE:
                raise ChannelError(f"a message of {length} bytes")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            try:
                messages.append(_decoder.decode(memoryview(buffer)[start + _LENGTH.size : end]))
            except msgspec.DecodeError as error:
                raise ChannelError(str(error)) from error
            start = end
        del buffer[:start]
        return messages


def to_frame(stream: int, total: int, frame: TokenFrame) -> Frame:
    """A token frame as it travels; its load travels once per batch."""
    cached = frame.cached_tokens
    return Frame(stream, total, frame.deltas, frame.finished, frame.load_ms, cached, frame.cross_model_tokens)


def from_frame(frame: Frame, load: Load) -> TokenFrame:
    """The other way round."""
    cached = frame.cached_tokens
    return TokenFrame(frame.deltas, frame.finished, load, frame.load_ms, cached, frame.cross_model_tokens)
