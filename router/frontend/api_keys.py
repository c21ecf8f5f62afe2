"""Who may send requests: whoever has one of the keys, where there are any.

Not covered: which key may use which model, and TLS. Keys travel in the clear unless something in front of the
router encrypts.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from heliostat.errors import HeliostatError, UnauthorizedError
from router.frontend.error_response import request_error_response

KEYS_VARIABLE = "HELIOSTAT_API_KEYS"
FILE_VARIABLE = "HELIOSTAT_API_KEYS_FILE"

OPEN_PATHS = ("/health", "/ready")
"""Probes have no key, and these say nothing that needs one."""

logger = logging.getLogger(__name__)


class ApiKeys:
    """The keys of a variable and of a file, which is read again when it changes: keys can be replaced."""

    def __init__(self, keys: str = "", file: Path | None = None) -> None:
        """`keys`, and those in `file`, are separated by spaces, commas or lines.

        Raises HeliostatError when there is no key, or the file cannot be read.
        """
        self._fixed = _digests(keys)
        self._file = file
        self._version: tuple[int, int, int] | None = None
        self._known = self._fixed
        try:
            self._look()
        except OSError as error:
            raise HeliostatError(f"{FILE_VARIABLE}: {file} cannot be read: {error.strerror}") from error
        if not self._known:
            raise HeliostatError(
                f"{KEYS_VARIABLE} or {FILE_VARIABLE} is set and holds no key; leave out both to serve all"
            )

    def accepts(self, key: str) -> bool:
        """Whether the key is one of them now. A file that is gone leaves its last keys in force."""
        try:
            self._look()
        except OSError as error:
            logger.warning("%s cannot be read, its last keys stay: %s", self._file, error.strerror)
        # Digests, so that how long the answer takes says nothing of the keys.
        return hashlib.sha256(key.encode()).digest() in self._known

    def _look(self) -> None:
        if self._file is None:
            return
        found = os.stat(self._file)
        version = (found.st_mtime_ns, found.st_ino, found.st_size)
        if version != self._version:
            self._known = self._fixed | _digests(self._file.read_text())
            self._version = version


def keys_from(environment: Mapping[str, str]) -> ApiKeys | None:
    """The keys that the environment names; None serves everybody. Raises HeliostatError."""
    keys, file = environment.get(KEYS_VARIABLE), environment.get(FILE_VARIABLE)
    if keys is None and file is None:
        return None
    return ApiKeys(keys or "", Path(file) if file else None)


class ApiKeyCheck:
    """Pure ASGI, before anything reads the body."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._accepts(scope):
            error = UnauthorizedError("no valid API key; send `Authorization: Bearer KEY`")
            response = request_error_response(error)
            response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _accepts(self, scope: Scope) -> bool:
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
        return scheme.lower() == "bearer" and self._keys.accepts(key.strip())


def _digests(text: str) -> frozenset[bytes]:
    return frozenset(hashlib.sha256(key.encode()).digest() for key in text.replace(",", " ").split())
