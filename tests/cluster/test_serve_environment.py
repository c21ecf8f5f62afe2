"""What Serve is told before it is imported; what the operator said stays."""

import os
import sysconfig
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.serve_environment import set_serve_environment


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RAY_SERVE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_haproxy_and_throughput_mode_are_the_default() -> None:
    set_serve_environment()
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] != os.environ["RAY_SERVE_HAPROXY_METRICS_PORT"]


def test_the_operator_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "RAY_SERVE_ENABLE_HA_PROXY", "0")
    set_serve_environment()
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "0"


def test_the_socket_path_is_short_enough_for_haproxy() -> None:
    set_serve_environment()
    folder = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
    assert len(str(folder / ("x" * 56) / "admin.sock")) <= 97


def test_our_haproxy_is_installed() -> None:
    assert (Path(sysconfig.get_path("scripts")) / "heliostat-haproxy").exists()


@pytest.mark.parametrize(
    "variable", ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"]
)
def test_two_clusters_on_one_host_listen_at_different_ports(variable: str) -> None:
    set_serve_environment()
    first = os.environ.pop(variable)
    set_serve_environment()
    assert os.environ[variable] != first


def test_a_node_gets_files_that_stay_and_serves_own_ports(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] = "7"
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "export RAY_SERVE_ENABLE_HA_PROXY=1" in lines
    assert not [line for line in lines if "PORT" in line or "NBTHREAD" in line], "what is said already stays"
    (socket,) = (line.partition("=")[2] for line in lines if "SOCKET_PATH" in line)
    assert Path(socket).parent.stat().st_uid == os.getuid()
    assert Path(socket).parent.stat().st_mode & 0o077 == 0
