"""One log file per engine: an engine is three processes, and their output belongs in one place.

Operators read one line (`EngineStartError`); this is where that line comes from.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# "ValueError: No available memory for the cache blocks." behind any logger's prefix.
_EXCEPTION = re.compile(r"(?:^|\s)((?:[\w.]+\.)?\w*(?:Error|Exception|Exit)): (\S.*)$")
# What vLLM says when one of its own processes failed: true, but never the root cause.
_SECONDARY = ("Engine core initialization failed", "WorkerProc initialization failed")


class EngineLog:
    """Sends what an engine's processes print into `<tmp>/heliostat/<replica>.log`."""

    def __init__(self, replica: str, directory: Path | None = None) -> None:
        directory = directory or Path(tempfile.gettempdir()) / "heliostat"
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / (re.sub(r"[^\w.-]", "_", replica) + ".log")

    @contextmanager
    def redirect(self) -> Iterator[None]:
        """Processes that are started inside write to the log for good; this process only meanwhile."""
        sys.stdout.flush()
        sys.stderr.flush()
        kept = os.dup(1), os.dup(2)
        log = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            os.dup2(log, 1)
            os.dup2(log, 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for descriptor in (*kept, log):
                os.close(descriptor)

    def root_cause(self) -> str | None:
        """The first exception that is not a mere consequence, in one line."""
        if not self.path.exists():
            return None
        for line in self.path.read_text(errors="replace").splitlines():
            found = _EXCEPTION.search(line)
            if found and not found.group(2).startswith(_SECONDARY):
                return f"{found.group(1).rsplit('.', 1)[-1]}: {found.group(2)}"
        return None
