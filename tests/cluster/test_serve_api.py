"""Serve's REST API: the token when it is asked for, and errors that say which address was meant."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.serve_api import ServeApi
from heliostat.errors import HeliostatError

EMPTY = json.dumps({"applications": {}, "proxies": {}})


class Dashboard:
    """Answers as it is told; notes what was asked."""

    def __init__(self) -> None:
        self.status, self.text = 200, EMPTY
        self.token = ""
        self.asked: list[tuple[str, str, str]] = []
        dashboard = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                access = self.headers.get("authorization", "")
                dashboard.asked.append((self.command, access, self.rfile.read(length).decode()))
                refused = dashboard.token and access != f"Bearer {dashboard.token}"
                body = b"Unauthorized" if refused else dashboard.text.encode()
                self.send_response(401 if refused else dashboard.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Dashboard]:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    dashboard = Dashboard()
    thread = threading.Thread(target=dashboard.server.serve_forever)
    thread.start()
    yield dashboard
    dashboard.server.shutdown()
    dashboard.server.server_close()
    thread.join()


def test_a_ray_without_serve_has_nothing(dashboard: Dashboard) -> None:
    details = ServeApi(dashboard.address).details()
    assert not details.runs and not details.applications


def by_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")


def by_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))


def by_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")


@pytest.mark.parametrize("given", [by_variable, by_path, by_home])
def test_the_token_is_found_where_ray_looks_for_it_and_sent_only_when_asked(
    dashboard: Dashboard,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: Callable[[pytest.MonkeyPatch, Path], None],
) -> None:
    given(monkeypatch, tmp_path)
    ServeApi(dashboard.address).details()
    assert [access for _, access, _ in dashboard.asked] == [""]
    dashboard.token = "secret"
    ServeApi(dashboard.address).put({"applications": []})
    assert [access for _, access, _ in dashboard.asked] == ["", "", "Bearer secret"]
    assert json.loads(dashboard.asked[-1][2]) == {"applications": []}


def test_without_a_token_the_error_says_where_it_belongs(dashboard: Dashboard) -> None:
    dashboard.token = "secret"
    with pytest.raises(HeliostatError, match="RAY_AUTH_TOKEN"):
        ServeApi(dashboard.address).details()


@pytest.mark.parametrize(
    ("status", "text"), [(404, "Not Found"), (200, "<html>"), (200, '{"applications": 3}')]
)
def test_what_is_no_dashboard_is_called_so(dashboard: Dashboard, status: int, text: str) -> None:
    dashboard.status, dashboard.text = status, text
    with pytest.raises(HeliostatError, match="not a Ray dashboard"):
        ServeApi(dashboard.address).details()


def test_what_serve_refuses_is_its_last_line(dashboard: Dashboard) -> None:
    dashboard.status, dashboard.text = 400, "Traceback\n  File x\nValueError: two applications at /\n"
    with pytest.raises(HeliostatError, match=r"refuses: ValueError: two applications at /$"):
        ServeApi(dashboard.address).put({"applications": []})


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "127.0.0.1:6379", "auto"])
def test_an_address_of_another_kind_is_refused_at_once(address: str) -> None:
    with pytest.raises(HeliostatError, match="http://HOST:8265"):
        ServeApi(address)


def test_nobody_answers(free_port: int) -> None:
    with pytest.raises(HeliostatError, match="no answer from a Ray dashboard"):
        ServeApi(f"http://127.0.0.1:{free_port}").details()


def test_rays_own_port_is_recognized(free_port: int) -> None:
    """It speaks gRPC: what comes back is no HTTP/1.1."""
    with socket.create_server(("127.0.0.1", free_port)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(HeliostatError, match="6379 is Ray's own port"):
            ServeApi(f"http://127.0.0.1:{free_port}").details()
        thread.join()


def test_diff_says_trouble_as_diff_does(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    spec = Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml"
    address = f"http://127.0.0.1:{free_port}"
    assert main(["diff", str(spec), "--address", address]) == 2
    assert main(["down", "--address", address]) == 1
    assert capsys.readouterr().err.count("no answer from a Ray dashboard") == 2


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
