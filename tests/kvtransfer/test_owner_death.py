"""A process that is killed: its readers are told at once, and its own claims on others end."""

import queue
import threading

import pytest

from heliostat.errors import NoSpaceError, OwnerLostError, TicketExpiredError, TransportError
from heliostat.spec import Transfer
from kvtransfer.registry import create_client
from kvtransfer.transport import KVReader, Outcome

NAME = "0abc"
WHOLE, PARTIAL = "4", "1"

OWNER = """
store = create_store(transfer, owner)
writer = store.open("0abc", KVHeader("domain", "d1", "layout", 3, 4, 2, 4 * 2 * 64))
writer.write(0, [[memoryview(bytearray(int(sys.argv[3]) * 64))]] * 2)
if sys.argv[3] == "4":
    writer.commit()
say(create_client(transfer, owner).address())
"""

READER = """
client = create_client(transfer, owner)
into = bytearray(64)
client.attach([memoryview(into)])
reader = client.get("0abc", sys.argv[3])
reader.read(0, [[memoryview(into)]])
say("open")
"""

promptly = pytest.mark.timeout(5, func_only=True)
"""Starting a process and its libraries is the fixtures' affair, and takes longer."""


@pytest.fixture(params=["nixl", "nccl"])
def transfer(request: pytest.FixtureRequest, directory: str) -> Transfer:
    return Transfer(transport=request.param, directory=directory, memory_gib=0.001)


class Scene:
    """An owner in a process of its own, and a client of ours that has what it needs to read."""

    def __init__(self, transfer: Transfer, start_child, blocks: str, kv) -> None:
        self.owner = start_child(OWNER, transfer, blocks)
        self.address = self.owner.line()
        self.client = create_client(transfer, "0")
        self.kv = kv(4, 2)
        self.client.attach([memoryview(layer) for layer in self.kv.layers])

    def get(self) -> KVReader:
        return self.client.get(NAME, self.address)

    def meet(self) -> None:
        """As after the first request: everything that a first read sets up is there."""
        reader = self.get()
        reader.read(0, self.kv.views([0]))
        reader.close()


@pytest.fixture
def whole(transfer: Transfer, start_child, kv_class) -> Scene:
    return Scene(transfer, start_child, WHOLE, kv_class)


@pytest.fixture
def partial(transfer: Transfer, start_child, kv_class) -> Scene:
    scene = Scene(transfer, start_child, PARTIAL, kv_class)
    scene.meet()
    return scene


@pytest.fixture(params=["first", "later"])
def scene(request: pytest.FixtureRequest, whole: Scene) -> Scene:
    """Before the first read from this owner, and after."""
    if request.param == "later":
        whole.meet()
    return whole


@promptly
def test_an_owner_killed_before_get_is_lost(scene: Scene) -> None:
    scene.owner.kill()
    for _ in range(2):
        with pytest.raises((OwnerLostError, TicketExpiredError)):
            scene.get()
    with pytest.raises(OwnerLostError):
        scene.client.release(NAME, scene.address, Outcome.RELEASED)


@promptly
def test_an_owner_killed_between_get_and_read_is_lost(scene: Scene) -> None:
    reader = scene.get()
    scene.owner.kill()
    with pytest.raises((OwnerLostError, TicketExpiredError)):
        reader.read(0, scene.kv.all())
    reader.close()


@promptly
def test_an_owner_killed_while_somebody_waits_is_lost(partial: Scene) -> None:
    reader = partial.get()
    assert reader.wait(1, 60) == 1
    errors: queue.Queue[TransportError] = queue.Queue()

    def wait() -> None:
        try:
            reader.wait(2, 60)
        except TransportError as error:
            errors.put(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    partial.owner.kill()
    waiting.join()
    assert isinstance(errors.get_nowait(), OwnerLostError | TicketExpiredError)
    reader.close()


@promptly
def test_the_death_of_one_owner_leaves_the_others_readable(
    whole: Scene, make_side, transfer, kv_class
) -> None:
    scene, written = whole, kv_class(4, 2)
    other = make_side(transfer.transport, memory_gib=0.001)
    other.put("0b", written)
    dead = scene.get()
    scene.owner.kill()
    with pytest.raises((OwnerLostError, TicketExpiredError)):
        dead.read(0, scene.kv.all())
    reader = scene.client.get("0b", other.own.address())
    reader.read(0, scene.kv.all())
    reader.close()
    dead.close()
    assert scene.kv.layers == written.layers


@pytest.mark.timeout(60)
def test_what_a_killed_reader_had_open_becomes_free(
    transfer: Transfer, make_side, start_child, kv_class
) -> None:
    side = make_side(transfer.transport, memory_gib=0.001)
    writer = side.store.open(NAME, side.header(8000, 1))  # half of the arena
    writer.write(0, kv_class(8000, 1).all())
    writer.commit()
    reader = start_child(READER, transfer, side.own.address())
    assert reader.line() == "open"
    side.own.release(NAME, side.own.address(), Outcome.ADMITTED)
    with pytest.raises(NoSpaceError):
        side.put("0b", kv_class(16000, 1), digest="d2")
    reader.kill()
    while True:  # the owner learns it from the kernel, in a thread of its own
        try:
            side.put("0b", kv_class(16000, 1), digest="d2")
            break
        except NoSpaceError:
            continue
