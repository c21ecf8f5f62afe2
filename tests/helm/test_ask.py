"""The script of `helm test`, run here: against a server that serves, and against ones that do not."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KEY = "sk-1"


@contextmanager
def cluster(ready: bool = True, tokens: int = 4) -> Iterator[str]:
    """What the script sees of a cluster with one API key."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            status, body = (200, "ready") if ready else (503, "prefill pool home has no replica")
            self.answer(status, {"status": body} if self.path == "/ready" else None)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["authorization"] != f"Bearer {KEY}":
                return self.answer(401, {"error": {"message": "no valid API key"}})
            assert self.path == "/v1/completions"
            usage = {"completion_tokens": tokens}
            return self.answer(200, {"choices": [{"text": asked["model"]}], "usage": usage})

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def script(helm: Any, example: Any) -> list[str]:
    """The command of the pod that Helm makes."""
    helm.install(example("multi-node"))
    helm.test()
    (pod,) = helm.cluster.of_kind("Pod")
    (container,) = pod["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["URL"] == "http://prod-heliostat-serve:8000"
    assert env["MODEL"] == "base"
    command, *rest = [*container["command"], *container["args"]]
    assert command == "python"
    return [sys.executable, *rest]


def run(script: list[str], url: str, keys: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "URL": url, "MODEL": "base", "KEYS": str(keys), "WITHIN_S": "0"}
    return subprocess.run(script, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_pods_script_says_whether_the_cluster_answers(script: list[str], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\nsk-2\n")
    with cluster() as url:
        fine = run(script, url, keys)
        assert (fine.returncode, fine.stdout.splitlines()[-1]) == (0, "base answers: 'base'")
        assert run(script, url, tmp_path / "absent").returncode != 0  # the cluster wants a key
    with cluster(ready=False) as url:
        waiting = run(script, url, keys)
        assert waiting.returncode == 1 and "prefill pool home has no replica" in waiting.stderr
    with cluster(tokens=0) as url:
        assert "base made no token" in run(script, url, keys).stderr
    assert "is not ready" in run(script, "http://127.0.0.1:1", keys).stderr
