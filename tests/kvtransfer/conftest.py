"""What the transports' tests have in common: a transport by name, and KV to move."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from heliostat.spec import Transfer
from kvtransfer.registry import create_client, create_store
from kvtransfer.transport import Buffers, KVClient, KVHeader, KVStore, KVWriter

BLOCK = 64


def header(num_blocks: int, num_layers: int, digest: str = "d1") -> KVHeader:
    num_bytes = num_blocks * num_layers * BLOCK
    return KVHeader("domain", digest, "layout", 3, num_blocks, num_layers, num_bytes)


@dataclass
class KV:
    """Random KV of some layers, in memory that can be written and read."""

    num_blocks: int
    num_layers: int
    layers: list[bytearray] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = self.num_blocks * BLOCK
        self.layers = self.layers or [bytearray(os.urandom(size)) for _ in range(self.num_layers)]

    def views(self, blocks: Sequence[int]) -> list[Buffers]:
        """One view per block, in this order, for each layer."""
        return [
            [memoryview(layer)[index * BLOCK : (index + 1) * BLOCK] for index in blocks]
            for layer in self.layers
        ]

    def all(self) -> list[Buffers]:
        return self.views(range(self.num_blocks))

    def blocks(self, blocks: Sequence[int]) -> list[list[bytes]]:
        return [[bytes(view) for view in views] for views in self.views(blocks)]


@dataclass
class Side:
    """A transport as one host has it: an owner's store and client, and a reader's client."""

    transfer: Transfer
    store: KVStore
    own: KVClient
    reader: KVClient

    header = staticmethod(header)

    def put(self, name: str, kv: KV, digest: str = "d1") -> KVWriter:
        writer = self.store.open(name, header(kv.num_blocks, kv.num_layers, digest))
        writer.write(0, kv.all())
        writer.commit()
        return writer

    def memory(self, kv: KV) -> KV:
        """Memory that the reader may read into."""
        self.reader.attach([memoryview(layer) for layer in kv.layers])
        return kv

    def get(self, name: str, first_block: int, num_blocks: int, num_layers: int) -> KV:
        """Read blocks into fresh memory."""
        into = self.memory(KV(num_blocks, num_layers))
        reader = self.reader.get(name, self.own.address())
        try:
            reader.read(first_block, into.all())
        finally:
            reader.close()
        return into


MakeSide = Callable[..., Side]


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Not in `tmp_path`: a path to a socket has to be shorter than the name of a test may make it."""
    return str(tmp_path_factory.mktemp("t") / "kv")


@pytest.fixture
def make_side(directory: str) -> Iterator[MakeSide]:
    made: list[Side] = []

    def make(transport: str, **settings: float) -> Side:
        transfer = Transfer(transport=transport, directory=directory, **settings)
        owner = uuid.uuid4().hex
        store = create_store(transfer, owner)
        own, reader = create_client(transfer, owner), create_client(transfer, uuid.uuid4().hex)
        side = Side(transfer, store, own, reader)
        made.append(side)
        return side

    yield make
    for side in made:
        side.store.close()


PROLOGUE = """
import os, sys
from heliostat.spec import Transfer
from kvtransfer.registry import create_client, create_store
from kvtransfer.transport import KVHeader, Outcome
transfer, owner = Transfer.model_validate_json(sys.argv[1]), sys.argv[2]
told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is not what we say
def say(line):
    print(line, file=told, flush=True)
"""


@dataclass
class Child:
    """A real process that runs Python code, and tells what it got to by a line of output."""

    process: "subprocess.Popen[str]"
    owner: str

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def kill(self) -> None:
        """SIGKILL; on return it is gone."""
        self.process.kill()
        self.process.wait()


StartChild = Callable[..., Child]


@pytest.fixture
def start_child() -> Iterator[StartChild]:
    """Start code that finds `transfer`, `owner` and `say` and goes on until its input ends."""
    children: list[Child] = []

    def start(code: str, transfer: Transfer, *arguments: str) -> Child:
        owner = uuid.uuid4().hex
        command = [sys.executable, "-c", PROLOGUE + code + "\nsys.stdin.read()"]
        process = subprocess.Popen(
            [*command, transfer.model_dump_json(), owner, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(Child(process, owner))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        for pipe in (child.process.stdin, child.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="session")
def kv_class() -> type[KV]:
    """Tests cannot import a conftest in importlib mode; they get the class as a fixture."""
    return KV
