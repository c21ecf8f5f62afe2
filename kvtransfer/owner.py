"""Who owns saved KV: one folder per prefill replica, and a lock that the kernel drops when it dies.

    directory/<owner>/lock      held by the owner's worker for as long as it lives

Whatever else a transport keeps in the folder goes with it, also after a `kill -9` of everything: the
next sweep of any replica, or the next start, finds the lock free.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from heliostat.errors import TransportError
from heliostat.spec import Transfer

LOCK = "lock"
SEGMENTS = "segments"
SHARED_MEMORY = Path("/dev/shm")
SEGMENT_NAME = re.compile(r"(?:psm_|sem\.mp-)\w+")
"""What Python's multiprocessing calls the shared memory and the semaphores that it makes for vLLM."""


class OwnerFolder:
    """The folder of a living owner, made and locked by its worker."""

    def __init__(self, transfer: Transfer, owner: str) -> None:
        self.path = make_directory(transfer) / checked(owner)
        try:
            self.path.mkdir(mode=0o700)
            # Locked under another name first: a sweep must never see the lock and find it free.
            unlocked = self.path / f"{LOCK}.new"
            self._lock = os.open(unlocked, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            unlocked.rename(self.path / LOCK)
        except OSError as error:
            raise TransportError(f"transfer.directory {self.path}: {error.strerror}") from error

    def note_segments(self, pids: Iterable[int]) -> None:
        """Write down the shared memory of these processes: killed, they could not remove it themselves."""
        names: set[str] = set()
        for pid in pids:
            with contextlib.suppress(OSError):  # it has just ended
                maps = Path(f"/proc/{pid}/maps").read_text()
                names.update(Path(path).name for path in re.findall(rf" {SHARED_MEMORY}/(\S+)", maps))
        noted = sorted(name for name in names if SEGMENT_NAME.fullmatch(name))
        (self.path / SEGMENTS).write_text("\n".join(noted))

    def close(self) -> None:
        """Remove the folder with all that is in it; whoever used the noted segments has ended."""
        _remove_segments(self.path)
        _remove(self.path)
        os.close(self._lock)


def make_directory(transfer: Transfer) -> Path:
    """The spec's directory, for the user alone."""
    directory = Path(transfer.directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TransportError(f"transfer.directory {directory}: {error.strerror}") from error
    return directory


def checked(name: str) -> str:
    """A name that may become a file name. Raises TransportError: tickets travel, so only hex may pass."""
    if not name or any(c not in "0123456789abcdef" for c in name):
        raise TransportError(f"name {name!r} is not hexadecimal")
    return name


def is_alive(owner: Path) -> bool:
    """Whether somebody holds the owner's lock."""
    try:
        with open(owner / LOCK, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # we cannot tell, out of descriptors perhaps; what lives must not be removed
    return False


def remove_dead(directory: Path) -> None:
    """Remove the folders of owners that died without doing so. Raises TransportError."""
    try:
        folders = [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise TransportError(f"transfer.directory {directory}: {error.strerror}") from error
    for path in folders:
        if (path / LOCK).exists() and not is_alive(path):
            _remove_segments(path)
            _remove(path)


def _remove_segments(folder: Path) -> None:
    """The shared memory that a dead owner's processes had noted."""
    try:
        names = (folder / SEGMENTS).read_text().split()
    except OSError:
        return  # none were noted
    for name in names:
        if SEGMENT_NAME.fullmatch(name):
            with contextlib.suppress(OSError):
                (SHARED_MEMORY / name).unlink()


def _remove(folder: Path) -> None:
    """The lock goes last: a removal that is cut short is found, and taken up, by the next sweep."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name != LOCK:
                os.unlink(entry.path)
    shutil.rmtree(folder, ignore_errors=True)


def host_identity() -> str:
    """This boot of this host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
