"""What pages show of errors and files, provoked: each test compares the block that names it (`shown`)."""

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from cluster.cli import main
from docs.site.parts import ROOT
from finetune.data import make_encoder, read_samples
from finetune.settings import DataSettings

WEIGHTS = ROOT / "examples" / "quickstart" / "weights"
CONNECTOR = "transfer: {connector: {name: ExampleConnector}}\n"

FAULTS = """\
family: {base: org/base}
transfer: {transport: shmem}
prefill:
  base: {weights: org/base, gpu: 1}
decode:
  base:
    weights: org/base
models:
  base: {prefill: base, decode: bose}
"""

FOUR_FAULTS = """\
family:
  base: org/base
transfer:
  transport: shmem
prefill:
  math:
    weights: org/math
    replicas: {min: 3, max: 1}
    gpu: 1
decode:
  shared: {weights: org/base}
models:
  math: {prefill: math, decode: shard}
"""


class Said:
    """Runs `heliostat` in a folder of its own; what it says on stderr."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *words: str) -> str:
        assert main(words) != 0
        self.out, error = self._capsys.readouterr()
        return error

    def spec(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    monkeypatch.chdir(tmp_path)
    return Said(tmp_path, capsys)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_wrong_spec_is_told_all_at_once(said: Said, shown: str) -> None:
    said.spec("bad.yaml", FAULTS)
    assert said("plan", "bad.yaml") == shown


def test_a_spec_with_four_faults(said: Said, shown: str) -> None:
    said.spec("cluster.yaml", FOUR_FAULTS)
    assert said("plan", "cluster.yaml") == f"heliostat: {shown}"


@pytest.fixture
def misfit(said: Said) -> str:
    """What the plan says of a module with another number of KV heads."""
    shutil.copytree(WEIGHTS / "base", said.folder / "other")
    config = said.folder / "other" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_key_value_heads": 4}))
    text = (WEIGHTS.parent / "cluster.yaml").read_text()
    text = text.replace("./weights/home-prefill", "./other").replace("./weights", str(WEIGHTS))
    said.spec("contract.yaml", text)
    return said("plan", "contract.yaml")


def test_modules_that_do_not_fit(misfit: str, shown: str) -> None:
    assert misfit == shown


def test_modules_that_do_not_fit_as_the_contract_says_it(misfit: str, shown: str) -> None:
    assert misfit == f"heliostat: contract.yaml: {shown}"


def test_a_spec_that_is_not_there(said: Said, shown: str) -> None:
    assert said("plan", "nothing.yaml") == shown


def test_a_port_that_is_taken(said: Said, taken_port: int, shown: str) -> None:
    spec = str(WEIGHTS.parent / "cluster.yaml")
    assert said("serve", spec, "--port", str(taken_port)) == shown.replace("8000", str(taken_port))


def test_another_connector_is_warned_of(said: Said, taken_port: int, shown: str) -> None:
    text = (WEIGHTS.parent / "cluster.yaml").read_text().replace("./weights", str(WEIGHTS))
    spec = {**yaml.safe_load(text), **yaml.safe_load(CONNECTOR)}
    said.spec("cluster.yaml", yaml.safe_dump(spec))
    said("serve", "cluster.yaml", "--port", str(taken_port))
    assert said.out.split() == shown.split()


def test_a_router_that_wants_an_api_key(said: Said, shown: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert said("status", "--url", url) == shown.replace("http://127.0.0.1:8000", url)
        server.shutdown()


def test_nobody_answers(said: Said, shown: str) -> None:
    assert said("status", "--url", "http://127.0.0.1:9") == shown


def test_rows_of_training_data(tmp_path: Path, shown: str) -> None:
    """Both forms are read, and are the same sample."""
    file = tmp_path / "rows.jsonl"
    file.write_text(shown)
    samples = read_samples(DataSettings(source=str(file)), make_encoder(WEIGHTS / "base"), 128, seed=0)
    assert len(samples.train) == 2
    assert samples.train[0] == samples.train[1]


def test_the_scrape_configuration_is_the_one_that_is_written(tmp_path: Path, shown: str) -> None:
    assert main(["dashboards", "write", str(tmp_path), "--url", "http://127.0.0.1:8000"]) == 0
    written = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    assert yaml.safe_load(shown)["scrape_configs"] == written["scrape_configs"]
