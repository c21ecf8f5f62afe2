"""The shm transport moves bytes unchanged, and says what went wrong when it cannot."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from heliostat.errors import TicketExpiredError, TransportError
from kvtransfer.shm import HEADER_PAGE, IOV_MAX, ShmTransport
from kvtransfer.transport import Buffers, KVHeader

BLOCK = 64
NAME = "0abc"

LEASE_S = 30.0


@pytest.fixture
def shm(tmp_path: Path) -> Iterator[ShmTransport]:
    open_before = len(os.listdir("/proc/self/fd"))
    yield ShmTransport(str(tmp_path / "segments"), LEASE_S)
    assert len(os.listdir("/proc/self/fd")) == open_before, "a descriptor is still open"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "segments"


def header(num_blocks: int, num_layers: int) -> KVHeader:
    num_bytes = num_blocks * num_layers * BLOCK
    return KVHeader("domain", "digest", "layout", 3, num_blocks, num_layers, num_bytes)


def random_layers(num_blocks: int, num_layers: int) -> list[bytes]:
    return [os.urandom(num_blocks * BLOCK) for _ in range(num_layers)]


def blocks(memory: bytes | bytearray, order: Sequence[int]) -> Buffers:
    """One view per block of `memory`, in this order."""
    return [memoryview(memory)[index * BLOCK : (index + 1) * BLOCK] for index in order]


def put(shm: ShmTransport, layers: list[bytes], name: str = NAME) -> None:
    shm.put(name, header(len(layers[0]) // BLOCK, len(layers)), [[memoryview(layer)] for layer in layers])


def get(shm: ShmTransport, layer: int, first_block: int, num_blocks: int, name: str = NAME) -> bytes:
    target = bytearray(num_blocks * BLOCK)
    reader = shm.get(name)
    try:
        reader.read(layer, first_block, [memoryview(target)])
    finally:
        reader.close()
    return bytes(target)


def test_scattered_blocks_come_back_in_order_in_every_layer(shm: ShmTransport) -> None:
    written, read = random_layers(4, 3), [bytearray(4 * BLOCK) for _ in range(3)]
    taken, target = [2, 0, 3, 1], [1, 3, 0, 2]
    shm.put(NAME, header(4, 3), [blocks(layer, taken) for layer in written])
    reader = shm.get(NAME)
    for layer in range(3):
        reader.read(layer, 0, blocks(read[layer], target))
    reader.close()
    for before, after in zip(written, read, strict=True):
        assert [bytes(b) for b in blocks(after, target)] == [bytes(b) for b in blocks(before, taken)]


def test_a_reader_sees_the_header_that_was_put(shm: ShmTransport) -> None:
    put(shm, random_layers(2, 5))
    reader = shm.get(NAME)
    assert reader.header == header(2, 5)
    reader.close()


def test_reading_may_begin_at_any_block(shm: ShmTransport) -> None:
    layers = random_layers(5, 2)
    put(shm, layers)
    assert get(shm, 1, 3, 2) == layers[1][3 * BLOCK :]


def test_more_views_than_one_system_call_takes_are_copied_whole(shm: ShmTransport) -> None:
    count = 2 * IOV_MAX + 7
    (layer,) = random_layers(count, 1)
    reverse = range(count - 1, -1, -1)
    shm.put(NAME, header(count, 1), [blocks(layer, reverse)])
    target = bytearray(len(layer))
    reader = shm.get(NAME)
    reader.read(0, 0, blocks(target, reverse))
    reader.close()
    assert bytes(target) == layer


def test_a_name_put_again_holds_the_newer_kv_and_no_draft_stays(shm: ShmTransport, folder: Path) -> None:
    old, new = random_layers(3, 1), random_layers(1, 1)
    put(shm, old)
    reader = shm.get(NAME)
    put(shm, new)
    assert get(shm, 0, 0, 1) == new[0]
    target = bytearray(3 * BLOCK)
    reader.read(0, 0, [memoryview(target)])
    reader.close()
    assert bytes(target) == old[0]
    assert os.listdir(folder) == [f"{NAME}.kv"]


def test_a_missing_name_is_an_expired_ticket(shm: ShmTransport) -> None:
    with pytest.raises(TicketExpiredError, match=f"the KV of ticket {NAME} is gone"):
        shm.get(NAME)


def test_an_open_reader_outlives_the_release_of_its_name(shm: ShmTransport) -> None:
    layers = random_layers(2, 1)
    put(shm, layers)
    reader = shm.get(NAME)
    assert shm.release(NAME)
    assert not shm.release(NAME)
    target = bytearray(2 * BLOCK)
    reader.read(0, 0, [memoryview(target)])
    reader.close()
    assert bytes(target) == layers[0]
    with pytest.raises(TicketExpiredError):
        shm.get(NAME)


def test_a_truncated_segment_is_short(shm: ShmTransport, folder: Path) -> None:
    put(shm, random_layers(2, 2))
    os.truncate(folder / f"{NAME}.kv", HEADER_PAGE + 4 * BLOCK - 1)
    assert get(shm, 0, 0, 2)
    with pytest.raises(TransportError, match="segment is short: 128 bytes wanted at 4224"):
        get(shm, 1, 0, 2)


@pytest.mark.parametrize("damage", [b"", b"\1", b"\x04\0\0\0null", b"\x02\0\0\0{}", b"\xff" * HEADER_PAGE])
def test_a_damaged_header_is_refused(shm: ShmTransport, folder: Path, damage: bytes) -> None:
    (folder / f"{NAME}.kv").write_bytes(damage)
    with pytest.raises(TransportError, match=f"the KV of ticket {NAME} is damaged"):
        shm.get(NAME)


@pytest.mark.parametrize("name", ["", "..", "../0abc", "0ABC", "0abc.kv", "g", "a/b", "٣"])
def test_a_name_that_is_not_hexadecimal_is_refused_everywhere(shm: ShmTransport, name: str) -> None:
    with pytest.raises(TransportError, match="is not hexadecimal"):
        shm.get(name)
    with pytest.raises(TransportError, match="is not hexadecimal"):
        shm.release(name)
    with pytest.raises(TransportError, match="is not hexadecimal"):
        put(shm, random_layers(1, 1), name)


def test_kv_that_does_not_fit_leaves_nothing_behind(shm: ShmTransport, folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(TransportError, match=r"cannot put KV into .*: No such file or directory"):
        put(shm, random_layers(1, 1))
    assert not folder.exists()


def test_sweeping_releases_what_is_past_its_lease_and_drafts_too(shm: ShmTransport, folder: Path) -> None:
    for name in ("01d", "2e"):
        put(shm, random_layers(1, 1), name)
    (folder / "3f.77.tmp").touch()
    (folder / "notes.txt").touch()
    assert shm.sweep() == 0
    over = time.time() - LEASE_S - 1
    for name in ("01d.kv", "3f.77.tmp", "notes.txt"):
        os.utime(folder / name, (over, over))
    assert shm.sweep() == 2
    assert sorted(os.listdir(folder)) == ["2e.kv", "notes.txt"]


def test_a_cluster_with_a_shorter_lease_leaves_the_others_kv_alone(shm: ShmTransport, folder: Path) -> None:
    put(shm, random_layers(1, 1), NAME)
    assert ShmTransport(str(folder), lease_s=0.001).sweep() == 0
    shm.get(NAME).close()


def test_segments_are_for_their_owner_alone(shm: ShmTransport, folder: Path) -> None:
    put(shm, random_layers(1, 1))
    assert folder.stat().st_mode & 0o077 == (folder / f"{NAME}.kv").stat().st_mode & 0o077 == 0
