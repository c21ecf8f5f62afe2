"""`heliostat models` against a server that answers as a router does."""

import argparse
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from pydantic import JsonValue

from cluster.models import models_command, spec_lines
from cluster.models_args import add_arguments
from heliostat.errors import HeliostatError
from router.frontend.models import ModelListing

FIRST: dict[str, JsonValue] = {
    "name": "first",
    "prefill": "home",
    "decode": "base",
    "prefill_adapter": None,
    "decode_adapter": "/adapters/spell",
    "origin": "added",
}
REFUSED: dict[str, JsonValue] = {
    "error": {
        "message": "no pool; did you mean `base`?",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
}


@dataclass
class FakeRouter:
    """Answers everything with `status` and `body`, and remembers what it was asked."""

    url: str
    status: int = 200
    body: JsonValue = None
    asked: list[tuple[str, str, JsonValue]] = field(default_factory=list)


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            router.asked.append((self.command, self.path, json.loads(content or "null")))
            body = json.dumps(router.body).encode()
            self.send_response(router.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer  # the names that the base class calls

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        router = FakeRouter(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield router
        server.shutdown()
        thread.join()


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return models_command(parser.parse_args(list(words)))


def test_a_new_model_is_posted_and_its_lines_for_the_spec_are_printed(
    router: FakeRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    router.status, router.body = 201, FIRST
    words = ("add", "first", "--prefill", "home", "--decode", "base", "--decode-adapter", "/adapters/spell")
    assert run(*words, "--url", router.url) == 0
    assert router.asked == [
        (
            "POST",
            "/heliostat/models",
            {
                "name": "first",
                "prefill": "home",
                "decode": "base",
                "prefill_adapter": None,
                "decode_adapter": "/adapters/spell",
                "untrained_pair": False,
            },
        )
    ]
    printed = capsys.readouterr().out
    assert "stays until the cluster stops" in printed
    assert yaml.safe_load(printed.split("add to the spec:")[1]) == {
        "decode": {"base": {"adapters": {"first": "/adapters/spell"}}},
        "models": {"first": {"prefill": "home", "decode": "base", "decode_adapter": "first"}},
    }


def test_a_directory_here_is_sent_by_its_whole_path_and_anything_else_as_it_is(
    router: FakeRouter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.status, router.body = 201, FIRST
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    sides = ("--prefill", "home", "--prefill-adapter", "org/mine", "--decode", "base")
    run("add", "first", *sides, "--decode-adapter", "mine", "--url", router.url)
    (_, _, body), *_ = router.asked
    assert isinstance(body, dict)
    assert (body["prefill_adapter"], body["decode_adapter"]) == ("org/mine", str(tmp_path / "mine"))


def test_an_adapter_that_the_pool_lists_needs_only_the_model_in_the_spec() -> None:
    listing = ModelListing(
        name="on", prefill="home", decode="base", prefill_adapter="spell", decode_adapter=None, origin="added"
    )
    assert yaml.safe_load(spec_lines(listing, untrained_pair=True)) == {
        "models": {
            "on": {"prefill": "home", "decode": "base", "prefill_adapter": "spell", "untrained_pair": True}
        }
    }


def test_what_the_cluster_refuses_is_said_in_its_words(router: FakeRouter) -> None:
    router.status, router.body = 400, REFUSED
    with pytest.raises(HeliostatError, match="did you mean `base`"):
        run("add", "first", "--prefill", "home", "--decode", "bse", "--url", router.url)


def test_the_list_names_pools_adapters_and_where_a_model_is_from(
    router: FakeRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    router.body = {"models": [FIRST]}
    assert run("list", "--url", router.url) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("first", "home", "base", "/adapters/spell", "added"))
    assert run("list", "--url", router.url, "--json") == 0
    assert json.loads(capsys.readouterr().out) == router.body


@pytest.mark.parametrize("root", ["", "/v1", "/v1/"])
def test_the_url_that_serve_prints_will_do(router: FakeRouter, root: str) -> None:
    router.body = {"models": []}
    assert run("list", "--url", router.url + root) == 0
    assert router.asked == [("GET", "/heliostat/models", None)]


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(HeliostatError, match="give an address like"):
        run("list", "--url", "127.0.0.1:8000")


def test_a_removed_model_of_the_spec_comes_back_unless_it_leaves_the_spec(
    router: FakeRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    router.body = {**FIRST, "origin": "spec"}
    assert run("remove", "first", "--url", router.url) == 0
    assert router.asked == [("DELETE", "/heliostat/models/first", None)]
    assert "take it out of the spec" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "body"), [(200, "hello"), (404, {"detail": "Not Found"})])
def test_a_server_that_is_no_router_is_said(router: FakeRouter, status: int, body: JsonValue) -> None:
    router.status, router.body = status, body
    with pytest.raises(HeliostatError, match="not a Heliostat router"):
        run("list", "--url", router.url)


def test_nobody_there_is_said() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(HeliostatError, match=r"no answer from .* is `heliostat serve` running there"):
            run("list", "--url", f"http://127.0.0.1:{port}")


def test_what_keeps_a_model_is_what_the_page_says(
    router: FakeRouter, capsys: pytest.CaptureFixture[str], shown: str
) -> None:
    command, _, printed = shown.removeprefix("$ heliostat models ").partition("\n")
    router.status = 201
    router.body = {
        "name": "weather",
        "prefill": "tuned",
        "decode": "shared",
        "prefill_adapter": "/models/weather-sun",
        "decode_adapter": None,
        "origin": "added",
    }
    assert run(*command.split(), "--url", router.url) == 0
    assert capsys.readouterr().out.strip() == printed.strip()
