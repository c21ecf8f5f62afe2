"""The two processes of the transfer benchmark: an owner that puts KV, a reader that gets it.

Each is a process of its own (spawn), holds the KV memory of one engine, and does what the benchmark asks,
one thing at a time. Nothing else runs in them, so what they time is the transport.
"""

import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, Generic, ParamSpec, TypeVar

from benchmarks.transfer_kv import QWEN3_8B, EngineMemory
from benchmarks.transfer_peers import WarmBuffer, copy_s, raw_owner, raw_reader
from heliostat.spec import Transfer
from kvtransfer.registry import create_client, create_store
from kvtransfer.transport import Outcome

KEPT_PROMPTS = 2.25
"""The store has room for two prompts, and some for their headers: every later put reuses memory."""

WAIT_S = 10.0
OWNER_SEED, READER_SEED = 1, 2

S = TypeVar("S")
R = TypeVar("R")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Setting:
    """One transport and one size of prompt."""

    transport: str
    tokens: int
    directory: Path

    @property
    def num_blocks(self) -> int:
        return QWEN3_8B.num_blocks(self.tokens)

    @property
    def num_bytes(self) -> int:
        return self.num_blocks * QWEN3_8B.block_bytes

    @property
    def transfer(self) -> Transfer:
        return Transfer.model_validate(
            {
                "transport": self.transport,
                "directory": str(self.directory / "kv"),
                "memory_gib": KEPT_PROMPTS * self.num_bytes / 2**30,
            }
        )


class Owner:
    """A prefill engine's half."""

    def __init__(self, setting: Setting) -> None:
        owner = uuid.uuid4().hex
        self._memory = EngineMemory(QWEN3_8B, setting.num_blocks, OWNER_SEED)
        self._memory.fill()
        self._store = create_store(setting.transfer, owner)
        self._client = create_client(setting.transfer, owner)
        self._raw = raw_owner(setting.transport, setting.num_bytes, setting.directory)

    def address(self) -> str:
        return self._client.address()

    def put(self, name: str) -> float:
        """Save the prompt under `name`, as one that was never seen; seconds."""
        header = self._memory.header(uuid.uuid4().hex)
        began = time.perf_counter()
        writer = self._store.open(name, header)
        writer.write(0, self._memory.views())
        writer.commit()
        return time.perf_counter() - began

    def checksum(self) -> str:
        return self._memory.checksum()

    def raw_offer(self) -> bytes:
        return self._raw.offer()

    def raw_meet(self) -> None:
        self._raw.meet()

    def raw_serve(self) -> float:
        return self._raw.serve()

    def close(self) -> None:
        self._raw.close()
        self._store.close()


class Reader:
    """A decode engine's half."""

    def __init__(self, setting: Setting) -> None:
        self._memory = EngineMemory(QWEN3_8B, setting.num_blocks, READER_SEED)
        self._client = create_client(setting.transfer, uuid.uuid4().hex)
        self._client.attach(self._memory.regions)
        self._source = WarmBuffer(setting.num_bytes)
        self._target = WarmBuffer(setting.num_bytes)
        self._raw = raw_reader(setting.transport, self._target, setting.directory)

    def get(self, name: str, address: str) -> float:
        """Read the prompt under `name`; seconds. Releasing the ticket afterwards is not timed."""
        began = time.perf_counter()
        reader = self._client.get(name, address)
        reader.wait(reader.header.num_blocks, WAIT_S)
        reader.read(0, self._memory.views())
        reader.close()
        seconds = time.perf_counter() - began
        self._client.release(name, address, Outcome.ADMITTED)
        return seconds

    def clear(self) -> None:
        self._memory.clear()

    def checksum(self) -> str:
        return self._memory.checksum()

    def raw_meet(self, offer: bytes) -> None:
        self._raw.meet(offer)

    def raw_read(self) -> tuple[float, float]:
        return self._raw.read()

    def copy(self) -> float:
        """Seconds of copying the prompt's bytes between two buffers of this process."""
        return copy_s(self._source, self._target)

    def close(self) -> None:
        self._raw.close()


class Process(Generic[S]):
    """A process that holds one `S`, and calls its methods."""

    def __init__(self, make: Callable[[Setting], S], setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_hold, initargs=(make, setting))

    def ask(self, method: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call the method over there. The answer raises what it raises, or BrokenProcessPool."""
        call: Callable[..., R] = _call
        return self._pool.submit(call, method, *args, **kwargs)

    def end(self) -> None:
        self._pool.shutdown()


_held: list[object] = []
"""What this process holds, when it is one side of the benchmark."""


def _hold(make: Callable[[Setting], object], setting: Setting) -> None:
    _held.append(make(setting))


def _call(method: Callable[..., R], *args: object, **kwargs: object) -> R:
    return method(_held[0], *args, **kwargs)


@contextmanager
def both_sides(setting: Setting) -> Iterator[tuple[Process[Owner], Process[Reader]]]:
    """An owner and a reader, for as long as the block."""
    owner, reader = Process(Owner, setting), Process(Reader, setting)
    try:
        yield owner, reader
    finally:
        reader.end()
        owner.end()
