"""The command line: exit statuses and what it prints, without Ray."""

import json
import socket
from pathlib import Path

import pytest

from cluster.cli import main

QUICKSTART = str(Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml")


def changed_quickstart(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of the quickstart's spec elsewhere, with one thing changed."""
    text = Path(QUICKSTART).read_text().replace("./weights", str(Path(QUICKSTART).parent / "weights"))
    spec = tmp_path / "cluster.yaml"
    spec.write_text(text.replace(old, new))
    return spec


def test_plan_prints_what_the_models_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", QUICKSTART]) == 0
    printed = capsys.readouterr().out
    for word in ("SUN", "PrefillShare", "home", "mirror", "spell", "dedicated"):
        assert word in printed


def test_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", QUICKSTART, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_typo_in_the_spec_is_one_line_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = changed_quickstart(tmp_path, "prefill: home,", "prefil: home,")
    assert main(["plan", str(spec)]) == 1
    error = capsys.readouterr().err
    assert f"{spec}:" in error
    assert "did you mean `prefill`?" in error


def test_a_missing_spec_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nowhere.yaml"]) == 1
    assert "nowhere.yaml" in capsys.readouterr().err


def test_a_port_in_use_is_said_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", QUICKSTART, "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_status_of_nobody_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert main(["status", "--url", f"http://127.0.0.1:{port}"]) == 1
    assert "is `heliostat serve` running there?" in capsys.readouterr().err


def test_an_unknown_command_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fly"])
    assert ended.value.code == 2


def test_a_directory_that_cannot_be_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    spec = changed_quickstart(tmp_path, "transport: shm", f"transport: shm, directory: {tmp_path}/file/kv")
    assert main(["serve", str(spec)]) == 1
    assert f"transfer.directory {tmp_path}/file/kv: Not a directory" in capsys.readouterr().err
