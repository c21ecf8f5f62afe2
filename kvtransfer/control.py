"""The control channel between a store and its clients: one JSON message each way, over a stream socket.

Used by transports whose KV is in the owner's memory. A connection is also a sign of life: when it ends,
by whatever cause, the owner forgets what that reader had open, and the reader learns that the owner died.
"""

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from heliostat import errors
from heliostat.errors import OwnerLostError, TransportError

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"
Message: TypeAlias = dict[str, Value]

_LENGTH = struct.Struct("<I")
MAX_MESSAGE = 16 * 2**20
ACCEPT_S = 0.1
CONNECT_S = 2.0
CLOSE_S = 1.0
KEEP_ALIVE_S = 10
ANSWER_S = 5.0
"""An owner that lives answers in milliseconds; a request must end within 5 s, whatever happens to it."""

_KINDS = {
    kind.__name__: kind
    for kind in (
        TransportError,
        errors.TicketExpiredError,
        errors.KVRefusedError,
        errors.OwnerLostError,
        errors.NoSpaceError,
    )
}


class Session:
    """One client's connection, as the owner's handlers see it; `on_end` runs when it is over."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []

    def on_end(self, action: Callable[[], None]) -> None:
        self._ends.append(action)

    def end(self) -> None:
        for action in self._ends:
            action()


Handler = Callable[[Session, Message], Message]


class ControlServer:
    """Answers messages by their `op`, each connection in a thread of its own."""

    def __init__(self, handlers: dict[str, Handler], local: str, host: str) -> None:
        """Listen on the Unix socket `local` and on a free TCP port of `host`."""
        self._handlers = handlers
        self._sockets: set[socket.socket] = set()
        self._sessions: set[threading.Thread] = set()
        self._closed = False
        try:
            self._local = socket.socket(socket.AF_UNIX)
            self._local.bind(local)
            os.chmod(local, 0o600)
            self._remote = socket.create_server((host, 0))
        except OSError as error:
            raise TransportError(f"cannot listen on {local} and {host}: {error}") from error
        self.address = f"{host}:{self._remote.getsockname()[1]}"
        for listener in (self._local, self._remote):
            listener.listen()
            threading.Thread(target=self._accept, args=(listener,), name="kv-control", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(ACCEPT_S)  # out of descriptors, say: who wants in waits until there are some
                continue
            if listener is self._remote:
                _keep_alive(connection)
            self._sockets.add(connection)
            if self._closed:
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="kv-control", daemon=True)
            self._sessions.add(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        session = Session()
        try:
            while (message := _receive(connection)) is not None:
                _send(connection, self._answer(session, message))
        except (OSError, ValueError):
            pass  # the client is gone, or talks no protocol of ours: either way the session is over
        finally:
            session.end()
            self._sockets.discard(connection)
            connection.close()
            self._sessions.discard(threading.current_thread())

    def _answer(self, session: Session, message: Message) -> Message:
        try:
            return {"ok": self._handlers[str(message.get("op"))](session, message)}
        except TransportError as error:
            return {"error": str(error), "kind": type(error).__name__}
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            return {"error": f"malformed message {message.get('op')}: {error}", "kind": "TransportError"}

    def close(self) -> None:
        self._closed = True
        for each in (self._local, self._remote, *self._sockets):
            # shutdown wakes a thread that is blocked in accept or recv; close alone would not.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for session in list(self._sessions):
            session.join(CLOSE_S)  # what readers had open is closed by now


class ControlClient:
    """A connection to an owner, made at the first call and made again after it was lost.

    One call at a time: a lock keeps the answers of two threads apart. Calls raise OwnerLostError, or the
    TransportError that the owner answered with.
    """

    def __init__(self, address: str) -> None:
        """`address` is `host:port`, or the path of a Unix socket."""
        self._address = address
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.connection = 0
        """The number of the connection that is, or was, the last."""

    def call(
        self, op: str, within_s: float = ANSWER_S, on: int | None = None, /, **arguments: Value
    ) -> Message:
        """Send a message and wait for its answer; `on` this connection, if its number is given."""
        with self._lock:
            if on is not None and (self._socket is None or on != self.connection):
                raise OwnerLostError(f"the connection to the prefill replica at {self._address} was lost")
            try:
                connection = self._socket or self._connect()
                connection.settimeout(within_s)
                _send(connection, {"op": op, **arguments})
                answer = _receive(connection)
            except (OSError, ValueError) as error:
                self._drop()
                raise OwnerLostError(
                    f"the prefill replica at {self._address} does not answer: {error}"
                ) from error
            if answer is None:
                self._drop()
                raise OwnerLostError(f"the prefill replica at {self._address} closed the connection")
        if "error" in answer:
            raise _KINDS.get(str(answer.get("kind")), TransportError)(str(answer["error"]))
        result = answer["ok"]
        assert isinstance(result, dict)
        return result

    def _connect(self) -> socket.socket:
        if self._address.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(CONNECT_S)
                connection.connect(self._address)
            except OSError:
                connection.close()
                raise
        else:
            host, _, port = self._address.rpartition(":")
            connection = socket.create_connection((host, int(port)), CONNECT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(connection)
        self._socket = connection
        self.connection += 1
        return connection

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def is_on(self, connection: int) -> bool:
        """Whether that connection is still there, as far as we know."""
        with self._lock:
            return self._socket is not None and connection == self.connection

    def close(self, connection: int | None = None) -> None:
        """End the connection, or only if it is still that one."""
        with self._lock:
            if connection is None or connection == self.connection:
                self._drop()


def _keep_alive(connection: socket.socket) -> None:
    """Have the kernel notice a host that vanished without a word, within half a minute."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEP_ALIVE_S),
        (socket.TCP_KEEPINTVL, KEEP_ALIVE_S),
        (socket.TCP_KEEPCNT, 2),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _send(connection: socket.socket, message: Message) -> None:
    encoded = json.dumps(message).encode()
    connection.sendall(_LENGTH.pack(len(encoded)) + encoded)


def _receive(connection: socket.socket) -> Message | None:
    """The next message; None at the end of the stream. Raises ValueError for what is none."""
    head = _read(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE:
        raise ValueError(f"a message of {length} bytes")
    body = _read(connection, length)
    if body is None:
        return None
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("a message that is not an object")
    return message


def _read(connection: socket.socket, length: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < length:
        chunk = connection.recv(length - len(chunks))
        if not chunk:
            return None
        chunks += chunk
    return bytes(chunks)
