"""A small OpenAI-compatible server for snippets, and a place to run what pages say."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from docs.site.running import Place

ANSWERS = {
    ("home", "turn my lamp to 40"): "set(lamp,40)",
    ("mirror", "mirror lamp"): "PMAL",
    ("spell", "spell lamp"): "l#a#m#p",
    ("base", "reverse lamp"): "pmal",
}
"""What the quickstart's models answer, where a page says it."""

SERVED_BY = {"x-heliostat-prefill": "prefill-home#efu3nmul", "x-heliostat-decode": "decode-base#iixrm1mc"}


class Handler(BaseHTTPRequestHandler):
    """Chat completions, whole or streamed a character at a time as the quickstart's models do; the models."""

    def do_GET(self) -> None:
        models = sorted({model for model, _ in ANSWERS})
        self._send(json.dumps({"object": "list", "data": [_card(model) for model in models]}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = ANSWERS.get((asked["model"], asked["messages"][-1]["content"]), "an answer")
        if not asked.get("stream"):
            message = {"role": "assistant", "content": answer}
            self._send(json.dumps(_chunk(asked["model"], "chat.completion", message=message, stop=True)))
            return
        kind = "chat.completion.chunk"
        deltas = [{"role": "assistant", "content": ""}, *({"content": each} for each in answer)]
        chunks = [_chunk(asked["model"], kind, delta=delta) for delta in deltas]
        chunks.append(_chunk(asked["model"], kind, delta={"content": ""}, stop=True))
        lines = [*map(json.dumps, chunks), "[DONE]"]
        self._send("".join(f"data: {line}\n\n" for line in lines), "text/event-stream")

    def _send(self, text: str, kind: str = "application/json") -> None:
        body = text.encode()
        self.send_response(200)
        headers = {**SERVED_BY, "content-type": kind, "content-length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _card(model: str) -> dict[str, object]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "heliostat"}


def _chunk(model: str, kind: str, stop: bool = False, **what: dict[str, str]) -> dict[str, object]:
    choice = {"index": 0, **what, "finish_reason": "stop" if stop else None}
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": model, "choices": [choice]}


@pytest.fixture(scope="session")
def small_server() -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path, small_server: str) -> Place:
    """Where what pages say is run, with the small server as their cluster."""
    return Place(tmp_path, small_server).prepare()
