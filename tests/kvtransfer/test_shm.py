"""What only the shm transport can promise or get wrong: files, their names, and who may see them."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.errors import TransportError
from kvtransfer.shm import HEADER_PAGE, ShmClient
from kvtransfer.transport import Outcome

NAME = "0abc"
LEASE_S = 30.0


@pytest.fixture
def no_descriptor_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def side(no_descriptor_stays_open: None, make_side):
    return make_side("shm", memory_gib=0.001, lease_s=LEASE_S)


@pytest.fixture
def folder(directory: str) -> Path:
    return Path(directory)


@pytest.fixture
def kv(kv_class):
    return kv_class


def own_folder(folder: Path) -> Path:
    (own,) = (path for path in folder.iterdir() if path.is_dir())
    return own


def test_a_truncated_segment_is_short(side, folder: Path, kv) -> None:
    side.put(NAME, kv(2, 2))
    os.truncate(folder / f"{NAME}.kv", HEADER_PAGE + 4 * 64 - 1)
    with pytest.raises(TransportError, match="segment is short: 128 bytes wanted at 4224"):
        side.get(NAME, 0, 2, 2)


@pytest.mark.parametrize("damage", [b"", b"\1", b"\x04\0\0\0null", b"\x02\0\0\0{}", b"\xff" * HEADER_PAGE])
def test_a_damaged_header_is_refused(side, folder: Path, damage: bytes) -> None:
    (folder / f"{NAME}.kv").write_bytes(damage)
    with pytest.raises(TransportError, match=f"the KV of ticket {NAME} is damaged"):
        side.reader.get(NAME, side.own.address())


@pytest.mark.parametrize("name", ["", "..", "../0abc", "0ABC", "0abc.kv", "g", "a/b", "٣"])
def test_a_name_that_is_not_hexadecimal_is_refused_everywhere(side, kv, name: str) -> None:
    address = side.own.address()
    side.put(NAME, kv(1, 1))
    for refused in (
        lambda: side.reader.get(name, address),
        lambda: side.reader.get(NAME, address.replace(address.rpartition("/")[2], name)),
        lambda: side.reader.release(name, address, Outcome.RELEASED),
        lambda: side.own.share("d1", name),
        lambda: side.own.share(name, "0b"),
        lambda: side.store.open(name, side.header(1, 1)),
        lambda: ShmClient(side.transfer, name),
        lambda: side.put("0c", kv(1, 1), digest=name),
    ):
        with pytest.raises(TransportError, match=r"is not hexadecimal|another host"):
            refused()


def test_a_name_put_again_leaves_an_open_reader_its_kv_and_no_file(side, folder: Path, kv) -> None:
    old, new, read = kv(3, 1), kv(1, 1), kv(3, 1)
    side.put(NAME, old)
    reader = side.reader.get(NAME, side.own.address())
    side.put(NAME, new)
    reader.read(0, read.all())
    reader.close()
    assert read.layers == old.layers
    assert [path.name for path in folder.glob("*.kv")] == [f"{NAME}.kv"]


def test_a_directory_that_vanished_is_an_error_and_no_crash(side, folder: Path, kv) -> None:
    writer = side.store.open("0b", side.header(1, 1))
    address = side.own.address()
    shutil.rmtree(folder)
    for failing in (
        lambda: side.put(NAME, kv(1, 1)),
        writer.commit,
        side.own.address,
        side.own.sweep,
        lambda: side.reader.get(NAME, address),
        lambda: side.reader.release(NAME, address, Outcome.RELEASED),
    ):
        with pytest.raises(TransportError, match="No such file or directory"):
            failing()
    assert side.own.share("d1", NAME) is None
    assert side.own.settled() == []
    writer.abort()
    assert not folder.exists()


def test_sweeping_takes_tickets_past_their_lease_and_nothing_else(side, folder: Path, kv) -> None:
    for number, name in enumerate(("01d", "2e")):
        side.put(name, kv(1, 1), digest=f"d{number}")
    (folder / "notes.txt").touch()
    assert side.own.sweep() == 0
    over = time.time() - 1
    for name in ("01d.kv", "notes.txt"):
        os.utime(folder / name, (over, over))
    assert side.own.sweep() == 1
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["2e.kv", "notes.txt"]


def test_a_cluster_with_a_shorter_lease_leaves_the_others_kv_alone(side, make_side, kv) -> None:
    side.put(NAME, kv(1, 1))
    hasty = make_side("shm", lease_s=1e-9)
    hasty.put("0b", kv(1, 1))
    assert hasty.own.sweep() == 1
    side.get(NAME, 0, 1, 1)


def test_sharing_lengthens_a_lease_and_never_shortens_one(side, folder: Path, kv) -> None:
    side.put(NAME, kv(1, 1))
    end = (folder / f"{NAME}.kv").stat().st_atime
    hasty = side.transfer.model_copy(update={"lease_s": 1e-9})
    ShmClient(hasty, own_folder(folder).name).share("d1", "0b")
    assert (folder / "0b.kv").stat().st_atime == end
    assert side.own.share("d1", "0c") is not None
    assert (folder / f"{NAME}.kv").stat().st_atime > end


def test_files_are_for_their_owner_alone(side, folder: Path, kv) -> None:
    side.put(NAME, kv(1, 1))
    modes = {path.stat().st_mode & 0o777 for path in (folder, own_folder(folder))}
    assert modes == {0o700}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {f"{NAME}.kv", "d1.kept", "lock", "settled"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
