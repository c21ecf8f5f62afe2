"""What a replica that was killed leaves in shared memory goes with the next sweep, and nothing else does."""

import os
import uuid
from multiprocessing import shared_memory
from pathlib import Path

import pytest

from heliostat.spec import Transfer
from kvtransfer.owner import SEGMENTS, OwnerFolder, remove_dead


@pytest.fixture
def transfer(tmp_path: Path) -> Transfer:
    return Transfer(directory=str(tmp_path / "kv"))


@pytest.fixture
def segment():
    segment = shared_memory.SharedMemory(create=True, size=4096)
    yield segment
    segment.close()
    Path("/dev/shm", segment.name).touch()  # for the resource tracker, which unlinks it
    segment.unlink()


def killed(owner: OwnerFolder) -> None:
    """The kernel closes a dead process's descriptors, and lets go of its locks."""
    os.close(owner._lock)


def test_noted_segments_of_a_dead_owner_are_removed(transfer: Transfer, segment) -> None:
    owner = OwnerFolder(transfer, uuid.uuid4().hex)
    owner.note_segments([os.getpid(), 2**22])  # the second has just ended
    assert segment.name in (owner.path / SEGMENTS).read_text().split()
    remove_dead(owner.path.parent)
    assert Path("/dev/shm", segment.name).exists(), "it lives"
    (owner.path / SEGMENTS).write_text(segment.name)
    killed(owner)
    remove_dead(owner.path.parent)
    assert not Path("/dev/shm", segment.name).exists()
    assert not owner.path.exists()


def test_nothing_but_pythons_shared_memory_is_ever_removed(transfer: Transfer, tmp_path: Path) -> None:
    owner = OwnerFolder(transfer, uuid.uuid4().hex)
    other = Path("/dev/shm", f"not-ours-{uuid.uuid4().hex}")
    victim = tmp_path / "psm_victim"
    for path in (other, victim):
        path.touch()
    (owner.path / SEGMENTS).write_text(f"{other.name}\n../../{victim}\n..\n")
    killed(owner)
    remove_dead(owner.path.parent)
    assert other.exists() and victim.exists()
    other.unlink()


def test_an_owner_that_closes_removes_its_folder(transfer: Transfer) -> None:
    owner = OwnerFolder(transfer, uuid.uuid4().hex)
    owner.close()
    assert not owner.path.exists()
