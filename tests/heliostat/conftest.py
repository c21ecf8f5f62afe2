"""A server on a real socket of this host that does to each request what a test has written down."""

import asyncio
import json
import socket
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import JsonValue

Json = dict[str, JsonValue]


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Json:
        found: Json = json.loads(self.content)
        return found


class Exchange:
    """One request and what is done to it. A connection is kept, unless it is dropped."""

    def __init__(self, asked: Asked, reader: StreamReader, writer: StreamWriter) -> None:
        self.asked = asked
        self.kept = True
        self._reader = reader
        self.writer = writer

    async def answer(
        self, body: Json | str, status: int = 200, content_type: str = "application/json", **headers: str
    ) -> None:
        """All at once; `retry_after` becomes `retry-after`."""
        content = (body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)).encode()
        await self.head(status, content_type, content_length=str(len(content)), **headers)
        await self.send(content)

    async def head(self, status: int = 200, content_type: str = "text/event-stream", **headers: str) -> None:
        """Without a length, a body in chunks follows."""
        if "content_length" not in headers:
            headers["transfer_encoding"] = "chunked"
        lines = [f"HTTP/1.1 {status} Told", f"content-type: {content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def chunk(self, content: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(content), content))

    async def event(self, data: Json | str) -> None:
        """One server-sent event."""
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        await self.chunk(f"data: {text}\n\n".encode())

    async def text(self, text: str, finish_reason: str | None = None) -> None:
        """One piece of a chat."""
        choice: Json = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
        await self.event({"id": "chat-1", "model": "told", "choices": [choice]})

    async def end(self) -> None:
        """Of a body in chunks."""
        await self.send(b"0\r\n\r\n")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def client_left(self) -> None:
        """Until the client has closed the connection."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionResetError:
            pass
        self.kept = False

    def drop(self) -> None:
        """Close the connection at once."""
        self.kept = False
        self.writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


def answering(text: str, **more: str) -> Script:
    """A chat's whole answer; `more` are headers."""

    async def script(exchange: Exchange) -> None:
        choice: Json = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        usage: Json = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
        body: Json = {"id": "chat-1", "model": "told", "choices": [choice], "usage": usage}
        await exchange.answer(body, **more)

    return script


@dataclass
class OpenAIServer:
    """Does the scripts one after the other, whatever is asked; when none is left, `always`."""

    scripts: deque[Script] = field(default_factory=deque)
    always: Script | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def then(self, *scripts: Script) -> None:
        self.scripts.extend(scripts)

    async def __aenter__(self) -> "OpenAIServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self, *command: str | Path) -> str:
        """Another program, while this serves; its output."""
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while (asked := await _read_request(reader)) is not None:
                self.asked.append(asked)
                script = self.scripts.popleft() if self.scripts else self.always
                assert script is not None, f"nothing is written down for {asked.path}"
                exchange = Exchange(asked, reader, writer)
                await script(exchange)
                if not exchange.kept:
                    break
        except ConnectionError:
            pass  # the client left while it was written to
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read_request(reader: StreamReader) -> Asked | None:
    """None: the connection is over."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (IncompleteReadError, ConnectionResetError):
        return None
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, _ = first.split(" ")
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


@pytest.fixture(name="answering", scope="session")
def answering_fixture() -> Callable[..., Script]:
    """Tests cannot import a conftest in importlib mode; they get it as a fixture."""
    return answering


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(OpenAIServer())
