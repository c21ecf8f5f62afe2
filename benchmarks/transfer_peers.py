"""What the transports are compared with: a copy of the same bytes, and each transport's raw path.

    shm     one `preadv` of a warm tmpfs file into a warm buffer
    nixl    one READ of one contiguous descriptor, by agents of our own (nixl 1.5)
    nccl    one Gloo `send` and `recv` of one contiguous tensor, in the default group (torch 2.13)

All buffers are contiguous and faulted in; connections are made before anything is timed.
"""

import ctypes
import mmap
import os
import time
import uuid
from pathlib import Path
from typing import Protocol

from heliostat.errors import HeliostatError

WIRE_UP_S = 60.0
MET = "met"
"""A file by which the reader says that it is connected."""


class WarmBuffer:
    """Contiguous memory with every page faulted in."""

    def __init__(self, num_bytes: int, fill: int = 1) -> None:
        self._map = mmap.mmap(-1, num_bytes)
        self.view = memoryview(self._map)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        ctypes.memset(self.address, fill, num_bytes)


class RawOwner(Protocol):
    """The side that has the bytes."""

    def offer(self) -> bytes:
        """What the reader must know."""

    def meet(self) -> None:
        """Help the reader to connect; runs beside its `meet`."""

    def serve(self) -> float:
        """Help with one read; when it began, or minus infinity where nobody's help is needed."""

    def close(self) -> None:
        """Leave the reader."""


class RawReader(Protocol):
    """The side that wants them."""

    def meet(self, offer: bytes) -> None:
        """Connect."""

    def read(self) -> tuple[float, float]:
        """Read once; when it began and when it ended, by a clock that all processes share."""

    def close(self) -> None:
        """Leave the owner."""


def copy_s(source: WarmBuffer, target: WarmBuffer) -> float:
    """Seconds of one `memmove` of all of `source`."""
    began = time.perf_counter()
    ctypes.memmove(target.address, source.address, source.view.nbytes)
    return time.perf_counter() - began


def raw_owner(transport: str, num_bytes: int, directory: Path) -> RawOwner:
    if transport == "nixl":
        return NixlOwner(num_bytes, directory)
    if transport == "nccl":
        return GlooOwner(num_bytes, directory)
    return FileOwner(num_bytes, directory)


def raw_reader(transport: str, target: WarmBuffer, directory: Path) -> RawReader:
    if transport == "nixl":
        return NixlReader(target, directory)
    if transport == "nccl":
        return GlooReader(target, directory)
    return FileReader(target)


class FileOwner:
    """A warm file in the tmpfs of `directory`."""

    def __init__(self, num_bytes: int, directory: Path) -> None:
        self._path = directory / "raw"
        self._path.write_bytes(WarmBuffer(num_bytes).view)

    def offer(self) -> bytes:
        return os.fsencode(self._path)

    def meet(self) -> None:
        """Nothing."""

    def serve(self) -> float:
        return float("-inf")

    def close(self) -> None:
        """Nothing."""


class FileReader:
    def __init__(self, target: WarmBuffer) -> None:
        self._target = target
        self._fd = -1

    def meet(self, offer: bytes) -> None:
        self._fd = os.open(offer, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> tuple[float, float]:
        began = time.perf_counter()
        count = os.preadv(self._fd, [self._target.view], 0)
        ended = time.perf_counter()
        if count != self._target.view.nbytes:
            raise HeliostatError(f"the raw read gave {count} of {self._target.view.nbytes} bytes")
        return began, ended

    def close(self) -> None:
        os.close(self._fd)


class NixlOwner:
    """An agent like those of `kvtransfer.nixl`: without a progress thread, ticked during the wire-up."""

    def __init__(self, num_bytes: int, directory: Path) -> None:
        self._source = WarmBuffer(num_bytes)
        self._met = directory / MET
        self._agent = _agent()
        self._agent.register_memory([(self._source.address, num_bytes, 0, "")], "DRAM")

    def offer(self) -> bytes:
        return self._source.address.to_bytes(8, "little") + self._agent.get_agent_metadata()

    def meet(self) -> None:
        deadline = time.monotonic() + WIRE_UP_S
        while not self._met.exists():
            self._agent.get_new_notifs()  # which makes progress
            if time.monotonic() > deadline:
                raise HeliostatError("the raw NIXL reader did not connect")

    def serve(self) -> float:
        return float("-inf")

    def close(self) -> None:
        """Nothing."""


class NixlReader:
    def __init__(self, target: WarmBuffer, directory: Path) -> None:
        self._target = target
        self._met = directory / MET
        self._agent = _agent()
        self._agent.register_memory([(target.address, target.view.nbytes, 0, "")], "DRAM")
        self._handle: object = None

    def meet(self, offer: bytes) -> None:
        agent, size = self._agent, self._target.view.nbytes
        remote = agent.add_remote_agent(offer[8:])
        there = agent.get_xfer_descs([(int.from_bytes(offer[:8], "little"), size, 0)], "DRAM")
        here = agent.get_xfer_descs([(self._target.address, size, 0)], "DRAM")
        self._handle = agent.initialize_xfer("READ", here, there, remote)
        self.read()
        self._met.touch()

    def read(self) -> tuple[float, float]:
        deadline = time.monotonic() + WIRE_UP_S
        began = time.perf_counter()
        state = self._agent.transfer(self._handle)
        while state == "PROC" and time.monotonic() < deadline:
            state = self._agent.check_xfer_state(self._handle)
        ended = time.perf_counter()
        if state != "DONE":
            raise HeliostatError(f"the raw NIXL read ended as {state}")
        return began, ended

    def close(self) -> None:
        """Nothing."""


class NixlAgent(Protocol):
    """What we use of `nixl._api.nixl_agent`, which ships no types."""

    def register_memory(self, regions: list[tuple[int, int, int, str]], memory: str) -> object: ...
    def get_agent_metadata(self) -> bytes: ...
    def add_remote_agent(self, metadata: bytes) -> str: ...
    def get_new_notifs(self) -> object: ...
    def get_xfer_descs(self, descriptors: list[tuple[int, int, int]], memory: str) -> object: ...
    def initialize_xfer(self, operation: str, local: object, remote: object, name: str) -> object: ...
    def transfer(self, handle: object) -> str: ...
    def check_xfer_state(self, handle: object) -> str: ...


def _agent() -> NixlAgent:
    from nixl._api import nixl_agent, nixl_agent_config

    agent: NixlAgent = nixl_agent(
        uuid.uuid4().hex, nixl_agent_config(enable_prog_thread=False, backends=["UCX"])
    )
    return agent


class GlooOwner:
    """Rank 0 of a group of two."""

    def __init__(self, num_bytes: int, directory: Path) -> None:
        import torch

        self._buffer = WarmBuffer(num_bytes)
        self._tensor = torch.frombuffer(self._buffer.view, dtype=torch.uint8)
        self._directory = directory

    def offer(self) -> bytes:
        return b""

    def meet(self) -> None:
        _join(self._directory, 0)
        self.serve()

    def serve(self) -> float:
        import torch.distributed

        began = time.perf_counter()
        torch.distributed.send(self._tensor, 1)
        return began

    def close(self) -> None:
        _leave()


class GlooReader:
    """Rank 1."""

    def __init__(self, target: WarmBuffer, directory: Path) -> None:
        import torch

        self._tensor = torch.frombuffer(target.view, dtype=torch.uint8)
        self._directory = directory

    def meet(self, offer: bytes) -> None:
        _join(self._directory, 1)
        self.read()

    def read(self) -> tuple[float, float]:
        import torch.distributed

        began = time.perf_counter()
        torch.distributed.recv(self._tensor, 0)
        return began, time.perf_counter()

    def close(self) -> None:
        _leave()


def _join(directory: Path, rank: int) -> None:
    import torch.distributed

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory / 'gloo'}", rank=rank, world_size=2
    )


def _leave() -> None:
    """Its threads end before the process does."""
    import torch.distributed

    torch.distributed.destroy_process_group()
