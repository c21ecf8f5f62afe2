"""`/ui`: the live page, as files of this package; the page itself asks `/status` and the OpenAI endpoints.

Whoever may reach the router may read the page. It holds no data of its own.
"""

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.resources import files

from fastapi import FastAPI, Request, Response

PATH = "/ui"
PAGE = "page.html"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By the end of a file's name. A file of another kind in the folder is not served."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing from elsewhere, nothing inline: a model's name or answer that looks like a script stays text."""

SAFE = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page. `etag` changes with its content."""

    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """The file; without a body for HEAD, and 304 for a browser that has it."""
        # no-cache: kept, but asked about every time, so that a new version shows at once.
        headers = {**SAFE, "etag": self.etag, "cache-control": "no-cache"}
        known = {
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        }
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        if request.method == "HEAD":
            headers["content-length"] = str(len(self.content))
            return Response(headers=headers, media_type=self.media_type)
        return Response(self.content, headers=headers, media_type=self.media_type)


def load_assets() -> dict[str, Asset]:
    """Every file of the page, by name."""
    assets = {}
    for file in files("router.frontend").joinpath("ui").iterdir():
        if media_type := TYPES.get(file.name[file.name.rfind(".") :]):
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            assets[file.name] = Asset(content, media_type, etag)
    return assets


def add_ui_routes(app: FastAPI) -> None:
    """The page, and a route for each of its files: what is not among them is a 404 like any other path."""
    for name, asset in load_assets().items():
        path = PATH if name == PAGE else f"{PATH}/{name}"
        app.add_route(path, _endpoint(asset), methods=["GET", "HEAD"], include_in_schema=False)


def _endpoint(asset: Asset) -> Callable[[Request], Coroutine[None, None, Response]]:
    async def answer(request: Request) -> Response:
        return asset.answer(request)

    return answer
