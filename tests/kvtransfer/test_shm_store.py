"""Segments: who may have them, how much room they take, and what is left when their owner dies."""

import os
from pathlib import Path

import pytest

from heliostat.errors import NoSpaceError, OwnerLostError, TicketExpiredError
from heliostat.spec import Transfer
from kvtransfer.shm import ShmClient
from kvtransfer.transport import Outcome

BLOCKS = 800
"""In two layers 100 KiB, in a store of 1 MiB."""

OWNER = """
store = create_store(transfer, owner)
for name, whole in (("0a", True), ("0b", False)):
    writer = store.open(name, KVHeader("domain", name, "layout", 3, 2, 1, 128))
    writer.write(0, [[memoryview(b"k" * 64)]])
    if whole:
        writer.write(1, [[memoryview(b"v" * 64)]])
        writer.commit()
say(create_client(transfer, owner).address())
"""

FULL = """
import resource
store = create_store(transfer, owner)
from heliostat.errors import TransportError
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
writer = store.open("0a", KVHeader("domain", "d1", "layout", 3, 200, 1, 200 * 64))
try:
    writer.write(0, [[memoryview(bytes(200 * 64))]])
except TransportError as error:
    say(f"{error}")
writer.abort()
say(" ".join(sorted(name for _, _, files in os.walk(transfer.directory) for name in files)))
"""


@pytest.fixture
def side(make_side):
    return make_side("shm", memory_gib=0.001)


@pytest.fixture
def folder(directory: str) -> Path:
    return Path(directory)


@pytest.fixture
def kv(kv_class):
    return kv_class


def test_what_a_killed_owner_leaves_is_swept_but_not_its_tickets(side, start_child, folder: Path, kv) -> None:
    owner = start_child(OWNER, Transfer(directory=str(folder)))
    address = owner.line()
    assert side.own.sweep() == 0
    assert (folder / owner.owner / "lock").exists(), "it lives: a sweep leaves it alone"
    owner.kill()
    unfinished = side.reader.get("0b", address)
    assert side.own.sweep() == 0
    assert not (folder / owner.owner).exists()
    with pytest.raises(OwnerLostError, match=r"1 of 2 blocks came, and then no more"):
        unfinished.wait(2, 60)
    unfinished.close()
    read = kv(2, 1)
    reader = side.reader.get("0a", address)
    assert reader.wait(2, 60) == 2
    reader.read(0, read.all())
    reader.close()
    assert read.layers == [b"k" * 64 + b"v" * 64]
    for name in ("0a", "0b"):
        os.utime(folder / f"{name}.kv", (1, 1))
    assert side.own.sweep() == 2
    with pytest.raises(TicketExpiredError):
        side.reader.get("0a", address)


def test_a_ticket_of_a_dead_owner_can_be_released(side, start_child, folder: Path) -> None:
    owner = start_child(OWNER, Transfer(directory=str(folder)))
    address = owner.line()
    owner.kill()
    side.own.sweep()
    assert side.reader.release("0a", address, Outcome.ADMITTED)
    assert not side.reader.release("0a", address, Outcome.ADMITTED)


def test_a_removal_that_was_cut_short_is_taken_up_again(side, folder: Path) -> None:
    dead = folder / "dead"
    dead.mkdir()
    (dead / "1.kept").touch()
    (dead / "lock").touch()
    os.chmod(dead, 0o700)
    (folder / "not-an-owner").mkdir()
    side.own.sweep()
    assert not dead.exists()
    assert (folder / "not-an-owner").exists()


def test_a_store_that_closes_leaves_its_tickets_alone(make_side, folder: Path, kv) -> None:
    side, other = make_side("shm"), make_side("shm")
    written = kv(2, 1)
    side.put("0a", written)
    side.store.close()
    side.store.close = lambda: None
    other.own.sweep()
    assert side.get("0a", 0, 2, 1).layers == written.layers
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("digest", ["d1", "d2"])
def test_a_segment_that_was_reused_when_the_link_was_made_is_not_handed_out(
    side, folder: Path, kv, digest: str
) -> None:
    """`link` finds the file, the owner claims it, and only then the link is there."""
    side.put("0a", kv(BLOCKS, 2), digest="d1")
    side.reader.release("0a", side.own.address(), Outcome.ADMITTED)
    for number in range(1, 9):
        side.put(f"{number:x}", kv(BLOCKS, 2), digest=f"e{number}")
    (kept,) = folder.glob("*/d1.kept")
    found = os.open(kept, os.O_RDONLY)
    side.put("0b", kv(BLOCKS, 2), digest="e9")
    writer = side.store.open("0c", side.header(BLOCKS, 2, digest))
    assert not kept.exists(), "d1 was the one written longest ago"
    assert os.path.samestat(os.fstat(found), (folder / "0c.kv").stat())
    os.link(folder / "0c.kv", kept)
    assert side.own.share("d1", "0d") is None
    if digest != "d1":
        writer.write(0, kv(BLOCKS, 2).all())
        assert side.own.share("d1", "0d") is None
    assert not (folder / "0d.kv").exists()
    os.close(found)


def test_kv_of_one_prompt_put_many_times_takes_no_more_room_than_there_is(side, folder: Path, kv) -> None:
    names = [f"{number:x}" for number in range(40)]
    with pytest.raises(NoSpaceError):
        for name in names:
            side.put(name, kv(BLOCKS, 2), digest="d1")
    files = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sum(files.values()) <= side.transfer.memory_gib * 2**30
    for name in names:
        side.reader.release(name, side.own.address(), Outcome.RELEASED)
    for name in names[:8]:
        side.put(name, kv(BLOCKS, 2), digest=f"e{name}")


def test_kv_that_does_not_fit_is_an_error_and_leaves_nothing(start_child, folder: Path) -> None:
    child = start_child(FULL, Transfer(directory=str(folder)))
    assert child.line() == f"cannot put KV into {folder}: File too large"
    assert child.line() == "lock settled"


def test_a_short_lease_of_an_own_client_does_not_end_a_ticket_that_is_being_shared(
    side, folder: Path, kv
) -> None:
    side.put("0a", kv(1, 1))
    side.reader.release("0a", side.own.address(), Outcome.ADMITTED)
    (kept,) = folder.glob("*/d1.kept")
    os.utime(kept, (1, 1))
    assert side.own.share("d1", "0b") is not None
    assert ShmClient(side.transfer, "0").sweep() == 0
    side.get("0b", 0, 1, 1)
