"""KV over torch.distributed, point to point: Gloo for KV in CPU memory (torch 2.13).

vLLM 0.32 has no NCCL connector. Here each pair of owner and reader is a process group of two, made when
they meet and gone when either leaves: there is no global world that all replicas would have to join, or
that one of them could break. The same calls run over NCCL for device memory; KV on a GPU is not covered.

API: `torch.distributed.ProcessGroupGloo`, `TCPStore`, `PrefixStore`.
"""

import socket
import threading
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch.distributed import PrefixStore, ProcessGroupGloo, TCPStore  # type: ignore[attr-defined]

from heliostat.errors import OwnerLostError, TransportError
from kvtransfer.arena import Arena, Span
from kvtransfer.control import ANSWER_S, Message, Session
from kvtransfer.memory_client import Send
from kvtransfer.transport import Buffers

OWNER, READER = 0, 1
TIMEOUT = timedelta(seconds=ANSWER_S)


class _Group(Protocol):
    """What we use of a process group; torch ships no types for it."""

    def send(self, tensors: list[torch.Tensor], rank: int, tag: int) -> torch.distributed.Work: ...

    def recv(self, tensors: list[torch.Tensor], rank: int, tag: int) -> torch.distributed.Work: ...


def _group(store: TCPStore, name: str, rank: int, host: str) -> _Group:
    gloo: Any = ProcessGroupGloo
    options = gloo._Options()
    options._devices = [gloo.create_device(hostname=host)]
    options._timeout = TIMEOUT
    group: _Group = gloo(PrefixStore(name, store), rank, 2, options)
    return group


class NcclOwnerLink:
    """`kvtransfer.memory_store.OwnerLink`: one group for each reader, sends on request."""

    def __init__(self, arena: Arena, host: str) -> None:
        self._host = host
        self._memory = torch.frombuffer(arena.memory, dtype=torch.uint8)
        # Left alone, the store would listen on every interface.
        listener = socket.create_server((host, 0))
        port = listener.getsockname()[1]
        self._store = TCPStore(
            host,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=TIMEOUT,
            master_listen_fd=listener.detach(),
        )
        self._groups: dict[Session, _Joining] = {}

    def meet(self, session: Session, introduction: Message) -> Message:
        name = uuid.uuid4().hex
        self._groups[session] = _Joining(self._store, name, self._host)
        session.on_end(lambda: self._leave(session))
        return {"host": self._host, "port": self._store.port, "group": name}

    def _leave(self, session: Session) -> None:
        self._groups.pop(session, None)

    def send(self, session: Session, spans: Sequence[Span]) -> None:
        try:
            group = self._groups[session].group()
            works = [
                group.send([self._memory[span.start : span.start + span.size]], READER, tag)
                for tag, span in enumerate(spans)
            ]
            for work in works:
                work.wait(TIMEOUT)
        except RuntimeError as error:
            raise TransportError(f"cannot send KV: {error}") from error

    def busy(self, readers: int) -> None:
        """Nothing: sends are asked for."""

    def close(self) -> None:
        # A group that is taken down while the interpreter ends takes the process with it.
        for joining in list(self._groups.values()):
            joining.end()
        self._groups.clear()


class _Joining:
    """A group that is made while its other half is still being told about it."""

    def __init__(self, store: TCPStore, name: str, host: str) -> None:
        self._group: _Group | None = None
        self._error: RuntimeError | None = None
        self._thread = threading.Thread(target=self._join, args=(store, name, host), daemon=True)
        self._thread.start()

    def _join(self, store: TCPStore, name: str, host: str) -> None:
        try:
            self._group = _group(store, name, OWNER, host)
        except RuntimeError as error:
            self._error = error

    def end(self) -> None:
        """Leave, here and now."""
        self._thread.join(ANSWER_S)
        self._group = None

    def group(self) -> _Group:
        self._thread.join(ANSWER_S)
        if self._group is None:
            raise RuntimeError(f"the reader did not join: {self._error}")
        return self._group


class NcclNetwork:
    """`kvtransfer.memory_client.Network`."""

    def __init__(self, host: str) -> None:
        self._host = host

    def attach(self, regions: Buffers) -> None:
        """Nothing: any memory can be received into."""

    def link(self) -> "NcclReaderLink":
        return NcclReaderLink(self._host)


class NcclReaderLink:
    """`kvtransfer.memory_client.ReaderLink`: receives are posted, then the owner is asked to send."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._group: _Group | None = None

    def introduce(self) -> Message:
        return {}

    def meet(self, introduction: Message) -> None:
        host, port = str(introduction["host"]), int(str(introduction["port"]))
        try:
            store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=TIMEOUT)
            self._group = _group(store, str(introduction["group"]), READER, self._host)
        except RuntimeError as error:
            raise OwnerLostError(f"cannot join the prefill replica at {host}:{port}: {error}") from error

    def fetch(self, spans: Sequence[Span], into: Sequence[memoryview], send: Send) -> None:
        group = self._group
        if group is None:
            raise OwnerLostError("the connection to the prefill replica was lost")
        with self._lock:
            try:
                works = [
                    group.recv([torch.frombuffer(view, dtype=torch.uint8)], OWNER, tag)
                    for tag, view in enumerate(into)
                ]
                send(spans)
                for work in works:
                    work.wait(TIMEOUT)
            except RuntimeError as error:
                raise OwnerLostError(f"the prefill replica broke off: {error}") from error

    def close(self) -> None:
        self._group = None
