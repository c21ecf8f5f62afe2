"""A push against a server that answers as Grafana's HTTP API documents it, over real sockets.

No Grafana can be had where these tests run: what is shown is what we send, and what people read.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cluster.cli import main
from cluster.dashboards.board import HELIOSTAT

TOKEN = "glsa_secret"
PROM = {"id": 1, "uid": "P1", "name": "Metrics", "type": "prometheus", "isDefault": True}
LOKI = {"id": 2, "uid": "L1", "name": "Logs", "type": "loki", "isDefault": False}

Answer = tuple[int, object]


@dataclass
class FakeGrafana:
    """Its state, and every call that changed it."""

    sources: list[dict[str, object]] = field(default_factory=lambda: [LOKI, PROM])
    folders: list[dict[str, str]] = field(default_factory=list)
    stored: dict[str, object] | None = None
    writes: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    refuse: int | None = None
    """Answer every call that needs the token with this status."""

    def answer(self, method: str, path: str, token: str, body: dict[str, object]) -> Answer:
        if path == "/api/health":
            return 200, {"commit": "1", "database": "ok", "version": "12.0.0"}
        if token != f"Bearer {TOKEN}":
            return 401, {"message": "Invalid API key"}
        if self.refuse:
            return self.refuse, {"message": "You'll need additional permissions"}
        if method == "POST":
            self.writes.append((path, body))
        match method, path:
            case "GET", "/api/datasources":
                return 200, self.sources
            case "GET", "/api/folders":
                return 200, self.folders
            case "POST", "/api/folders":
                self.folders.append({"id": 7, "uid": "F1", "title": body["title"]})
                return 200, self.folders[-1]
            case "GET", "/api/dashboards/uid/heliostat":
                return (200, self.stored) if self.stored else (404, {"message": "Dashboard not found"})
            case "POST", "/api/dashboards/db":
                return 200, self._store(body)
        return 404, {"message": "Not found"}

    def _store(self, body: dict[str, object]) -> dict[str, object]:
        version = self.stored["dashboard"]["version"] + 1 if self.stored else 1
        dashboard = {**body["dashboard"], "id": 11, "version": version}
        self.stored = {"dashboard": dashboard, "meta": {"folderUid": body["folderUid"], "slug": "heliostat"}}
        url = "/d/heliostat/heliostat"
        return {"id": 11, "uid": "heliostat", "url": url, "status": "success", "version": version}


@dataclass
class Served:
    """It, and where."""

    grafana: FakeGrafana
    url: str

    def push(self, *more: str, token: str = TOKEN) -> int:
        return main(["dashboards", "push", "--grafana", self.url, "--token", token, *more])


@pytest.fixture(params=["", "/monitoring"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """At the root of a host, and below a path, as behind a proxy."""
    grafana = FakeGrafana()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
            if self.path.startswith("/old/"):
                self.send_response(301)
                self.send_header("location", f"{request.param}{self.path.removeprefix('/old')}")
                self.end_headers()
                return
            path = self.path.removeprefix(request.param)
            token = self.headers.get("authorization", "")
            status, answer = grafana.answer(self.command, path, token, body)
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Served(grafana, f"http://127.0.0.1:{server.server_port}{request.param}")
        server.shutdown()
        thread.join()


def test_the_dashboard_arrives_whole_in_a_folder_of_its_own(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served.push() == 0
    assert [path for path, _ in served.grafana.writes] == ["/api/folders", "/api/dashboards/db"]
    body = served.grafana.writes[-1][1]
    assert body["dashboard"] == HELIOSTAT.to_json("P1")
    assert body["folderUid"] == "F1"
    assert body["overwrite"] is True
    assert capsys.readouterr().out == (
        f"{served.url}/d/heliostat created: version 1, in Heliostat, from the data source Metrics\n"
    )


def test_a_second_run_changes_nothing_and_a_changed_dashboard_is_replaced(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served.push() == served.push() == 0
    assert len(served.grafana.writes) == 2
    assert "nothing was changed" in capsys.readouterr().out
    served.grafana.stored["dashboard"]["title"] = "changed by hand"
    assert served.push() == 0
    assert "replaced: version 2" in capsys.readouterr().out
    assert served.grafana.stored["dashboard"]["title"] == "Heliostat"


def test_another_folder_moves_it(served: Served) -> None:
    assert served.push() == served.push("--folder", "LLMs") == 0
    assert served.grafana.stored["meta"]["folderUid"] == "F1"
    assert [path for path, _ in served.grafana.writes].count("/api/folders") == 2


def test_the_token_may_come_from_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    assert main(["dashboards", "push", "--grafana", served.url]) == 0


def test_no_token_is_said(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GRAFANA_TOKEN", raising=False)
    assert main(["dashboards", "push", "--grafana", served.url]) == 1
    assert "say --token, or set GRAFANA_TOKEN" in capsys.readouterr().err


def test_a_wrong_token_is_said(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert served.push(token="glsa_other") == 1
    error = capsys.readouterr().err
    assert "does not accept the token (401)" in error
    assert "glsa_other" not in error


def test_a_token_that_may_not_is_said(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.grafana.refuse = HTTPStatus.FORBIDDEN
    assert served.push() == 1
    assert "(403); the token's service account needs datasources:read" in capsys.readouterr().err


def test_a_grafana_that_is_ill_is_said(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.grafana.refuse = HTTPStatus.BAD_GATEWAY
    assert served.push() == 1
    assert "cannot read the data sources: Server Error 502" in capsys.readouterr().err


def test_what_is_no_grafana_is_said(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboards", "push", "--grafana", f"{served.url}/elsewhere", "--token", TOKEN]) == 1
    assert "answers, but not as a Grafana does (/api/health: status 4" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["grafana:3000", "ftp://grafana", "http://:3000", "http://grafana:port"])
def test_what_is_no_address_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboards", "push", "--grafana", url, "--token", TOKEN]) == 1
    assert f"--grafana {url}" in capsys.readouterr().err


def test_an_address_that_redirects_is_said(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    root = served.url.removesuffix("/monitoring")
    assert main(["dashboards", "push", "--grafana", f"{root}/old/", "--token", TOKEN]) == 1
    assert f"{root}/old redirects to {served.url}: say --grafana {served.url}" in capsys.readouterr().err


def test_no_prometheus_among_the_data_sources_is_said(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served.grafana.sources.remove(PROM)
    assert served.push() == 1
    assert "has no Prometheus data source; add one" in capsys.readouterr().err
    assert not served.grafana.writes


def test_a_data_source_is_named_or_chosen_but_never_guessed(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served.grafana.sources[:] = [{**PROM, "isDefault": False}, {**PROM, "uid": "P2", "name": "Other"}]
    served.grafana.sources[1]["isDefault"] = False
    assert served.push() == 1
    assert "several Prometheus data sources: Metrics, Other; say --datasource" in capsys.readouterr().err
    assert served.push("--datasource", "None") == 1
    assert "no Prometheus data source None; it has: Metrics, Other" in capsys.readouterr().err
    assert served.push("--datasource", "Other") == 0
    variables = {each["name"]: each for each in served.grafana.stored["dashboard"]["templating"]["list"]}
    assert variables["datasource"]["current"] == {"value": "P2"}


@pytest.mark.parametrize("served", [""], indirect=True)
def test_two_runs_print_what_the_page_says(
    served: Served, capsys: pytest.CaptureFixture[str], shown: str
) -> None:
    printed = [line for line in shown.splitlines() if not line.startswith("$ ")]
    assert served.push() == served.push() == 0
    assert capsys.readouterr().out.replace(served.url, "http://127.0.0.1:3000").splitlines() == printed
