"""A small OpenAI-compatible server for snippets, and a place to run commands in."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES_URL = "http://127.0.0.1:8000"
"""Where the pages have their cluster."""

ANSWERS = {
    ("home", "turn my lamp to 40"): "set(lamp,40)",
    ("mirror", "mirror lamp"): "PMAL",
    ("spell", "spell lamp"): "l#a#m#p",
    ("base", "reverse lamp"): "pmal",
}
"""What the quickstart's models answer; a page that asks another question has its answer added here."""

SERVED_BY = {"x-heliostat-prefill": "prefill-home#efu3nmul", "x-heliostat-decode": "decode-base#iixrm1mc"}


class Handler(BaseHTTPRequestHandler):
    """Chat completions, whole or streamed a character at a time as the quickstart's models do; the models."""

    def do_GET(self) -> None:
        models = sorted({model for model, _ in ANSWERS})
        self._send(json.dumps({"object": "list", "data": [_card(model) for model in models]}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = ANSWERS[asked["model"], asked["messages"][-1]["content"]]
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


Run = Callable[[str], str]


@pytest.fixture
def run(tmp_path: Path, small_server: str) -> Run:
    """Runs shell commands and returns what they print; fails where one does.

    They see the repository's files, and write into a folder of the test. `heliostat` and `python` are those
    of the tests, the terminal is 100 columns wide, and the small server stands for the cluster.
    """
    for file in ROOT.iterdir():
        if file.name not in (".venv", ".git", "build"):
            (tmp_path / file.name).symlink_to(file)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, start in (("python", ""), ("heliostat", "-m cluster.cli ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start}"$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "COLUMNS": "100",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def run_commands(text: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text.replace(PAGES_URL, small_server)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run_commands


@pytest.fixture
def run_python(small_server: str) -> Run:
    """Runs a program in the repository's folder, with the small server in place of the cluster."""

    def run_program(text: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", text.replace(PAGES_URL, small_server)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_program
