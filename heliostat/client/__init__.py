"""The client SDK: what an agent needs of a cluster, or of any server that speaks OpenAI's protocol.

What is decided (requests, retries, what an answer means) has no I/O in it and is written once; `async_client`
and `sync_client` only send and read. All names here are names of `heliostat`, too.
"""

from heliostat.client.answer import Answer, Choice, ModelCard, Piece, ServedBy, TokenLogprob, ToolCallDelta
from heliostat.client.async_client import AsyncClient
from heliostat.client.async_context import AsyncContext
from heliostat.client.async_stream import AsyncStream
from heliostat.client.context import ContextUsage
from heliostat.client.hints import Hints
from heliostat.client.messages import Message, ToolCall
from heliostat.client.options import ChatOptions, CompletionOptions
from heliostat.client.retry import Backoff
from heliostat.client.sync_client import Client
from heliostat.client.sync_context import Context
from heliostat.client.sync_stream import Stream
from heliostat.client.usage import Totals, Usage
from heliostat.errors import (
    ClientError,
    HeliostatError,
    InvalidRequestError,
    OtherStatusError,
    OverloadedError,
    PoolUnavailableError,
    RequestError,
    RequestTooLargeError,
    SomeFailedError,
    StreamBrokenError,
    TimedOutError,
    UnauthorizedError,
    UnexpectedAnswerError,
    UnknownModelError,
    UnreachableError,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncContext",
    "AsyncStream",
    "Backoff",
    "ChatOptions",
    "Choice",
    "Client",
    "ClientError",
    "CompletionOptions",
    "Context",
    "ContextUsage",
    "HeliostatError",
    "Hints",
    "InvalidRequestError",
    "Message",
    "ModelCard",
    "OtherStatusError",
    "OverloadedError",
    "Piece",
    "PoolUnavailableError",
    "RequestError",
    "RequestTooLargeError",
    "ServedBy",
    "SomeFailedError",
    "Stream",
    "StreamBrokenError",
    "TimedOutError",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "Totals",
    "UnauthorizedError",
    "UnexpectedAnswerError",
    "UnknownModelError",
    "UnreachableError",
    "Usage",
]
