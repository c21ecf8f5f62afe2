"""KV over NIXL: a decode engine reads the arena of a prefill engine, one-sided (nixl 1.5).

The agents have no progress thread, because on a host whose cores the engines need those threads starve
them. A read over CMA, NVLink or RDMA needs nobody on the owner's side; the wire-up and a read over TCP
do. So the owner makes progress exactly while a reader has something open, which the control channel
tells it, and costs nothing otherwise.

API: `nixl._api.nixl_agent` (register_memory, add_remote_agent, initialize_xfer, check_xfer_state).
"""

import base64
import contextlib
import os
import threading
import time
import uuid
from collections.abc import Sequence

from nixl._api import nixl_agent, nixl_agent_config
from nixl._bindings import (
    nixlBackendError,
    nixlCancelledError,
    nixlInvalidParamError,
    nixlMismatchError,
    nixlNotAllowedError,
    nixlNotFoundError,
    nixlNotSupportedError,
    nixlRemoteDisconnectError,
    nixlUnknownError,
)

from heliostat.errors import OwnerLostError, TransportError
from kvtransfer.arena import Arena, Span
from kvtransfer.control import ANSWER_S, Message, Session
from kvtransfer.memory import address_of
from kvtransfer.memory_client import Send
from kvtransfer.transport import Buffers

TICK_S = 0.0005
"""Between two turns of the owner's progress while a reader is there."""

IDLE_S = 1.0

NixlError = (
    nixlBackendError,
    nixlCancelledError,
    nixlInvalidParamError,
    nixlMismatchError,
    nixlNotAllowedError,
    nixlNotFoundError,
    nixlNotSupportedError,
    nixlRemoteDisconnectError,
    nixlUnknownError,
)
"""NIXL's errors have no common base."""


def _agent(host: str) -> nixl_agent:
    if host.startswith("127."):
        # UCX would listen on every interface; it reads this when the first agent is made.
        os.environ.setdefault("UCX_NET_DEVICES", "lo")
    return nixl_agent(uuid.uuid4().hex, nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))


class NixlOwnerLink:
    """`kvtransfer.memory_store.OwnerLink`: the arena is registered once, readers get our metadata."""

    def __init__(self, arena: Arena, host: str) -> None:
        self._agent = _agent(host)
        self._base = arena.base
        self._agent.register_memory([(arena.base, arena.size, 0, "")], "DRAM")
        self._metadata = base64.b64encode(self._agent.get_agent_metadata()).decode()
        self._wanted = threading.Event()
        self._open = True
        self._ticker = threading.Thread(target=self._tick, name="nixl-tick", daemon=True)
        self._ticker.start()

    def meet(self, session: Session, introduction: Message) -> Message:
        return {"metadata": self._metadata, "base": self._base}

    def send(self, session: Session, spans: Sequence[Span]) -> None:
        """Nothing: the reader reads."""

    def busy(self, readers: int) -> None:
        if readers:
            self._wanted.set()
        else:
            self._wanted.clear()

    def _tick(self) -> None:
        while self._open:
            if self._wanted.wait(IDLE_S):
                self._agent.get_new_notifs()
                time.sleep(TICK_S)

    def close(self) -> None:
        self._open = False
        self._wanted.set()  # so that it looks now, not after IDLE_S
        self._ticker.join()


class NixlNetwork:
    """`kvtransfer.memory_client.Network`: one agent for all owners that this process reads from."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._agent: nixl_agent | None = None
        self._lock = threading.Lock()  # an agent is for one thread at a time

    def attach(self, regions: Buffers) -> None:
        with self._lock:
            self._started().register_memory([(address_of(r), r.nbytes, 0, "") for r in regions], "DRAM")

    def link(self) -> "NixlReaderLink":
        with self._lock:
            return NixlReaderLink(self._started(), self._lock)

    def _started(self) -> nixl_agent:
        """Not before it is needed: a replica's own process has a client too, and never reads."""
        if self._agent is None:
            self._agent = _agent(self._host)
        return self._agent


class NixlReaderLink:
    """`kvtransfer.memory_client.ReaderLink`: one READ for all layers of a ticket."""

    def __init__(self, agent: nixl_agent, lock: threading.Lock) -> None:
        self._agent = agent
        self._lock = lock
        self._owner = ""
        self._base = 0

    def introduce(self) -> Message:
        return {}

    def meet(self, introduction: Message) -> None:
        self._base = int(str(introduction["base"]))
        with self._lock:
            try:
                name = self._agent.add_remote_agent(base64.b64decode(str(introduction["metadata"])))
            except NixlError as error:
                raise TransportError(f"cannot reach the prefill replica over NIXL: {error}") from error
        self._owner = name.decode() if isinstance(name, bytes) else name

    def fetch(self, spans: Sequence[Span], into: Sequence[memoryview], send: Send) -> None:
        local = [(address_of(view), view.nbytes, 0) for view in into]
        remote = [(self._base + span.start, span.size, 0) for span in spans]
        with self._lock:
            try:
                self._read(local, remote)
            except NixlError as error:
                raise OwnerLostError(f"the NIXL read broke off: {error}") from error
        send(())  # the owner does not see what we read: only its answer tells that the KV was there so long

    def _read(self, local: list[tuple[int, int, int]], remote: list[tuple[int, int, int]]) -> None:
        agent = self._agent
        handle = agent.initialize_xfer(
            "READ", agent.get_xfer_descs(local, "DRAM"), agent.get_xfer_descs(remote, "DRAM"), self._owner
        )
        deadline = time.monotonic() + ANSWER_S
        try:
            state = agent.transfer(handle)
            while state == "PROC" and time.monotonic() < deadline:
                state = agent.check_xfer_state(handle)  # which also moves the bytes on
        finally:
            agent.release_xfer_handle(handle)
        if state != "DONE":
            raise OwnerLostError(f"the NIXL read ended as {state} after at most {ANSWER_S:.0f} s")

    def close(self) -> None:
        with self._lock, contextlib.suppress(*NixlError):  # an owner that died may be unknown already
            self._agent.remove_remote_agent(self._owner)
