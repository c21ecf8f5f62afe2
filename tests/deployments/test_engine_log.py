"""An engine's three processes print into one file; its root cause is one line of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from deployments.engine_log import EngineLog

FAILED_START = """\
(EngineCore pid=7) INFO 11-20 14:26:19 [core.py:133] Initializing a V1 LLM engine
(Worker pid=9) ERROR 11-20 14:26:20 [multiproc_executor.py:700] Traceback (most recent call last):
(Worker pid=9) ERROR 11-20 14:26:20 [multiproc_executor.py:700]   File "worker.py", line 5, in load
(Worker pid=9) ERROR 11-20 14:26:20 [multiproc_executor.py:700] ValueError: No space: 7.8 GiB of 15 GiB.
(EngineCore pid=7) ERROR 11-20 14:26:21 [core.py:900] Exception: WorkerProc initialization failed
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_root_cause_is_the_first_exception(tmp_path: Path) -> None:
    log = EngineLog("decode-base#ab", tmp_path)
    log.path.write_text(FAILED_START)
    assert log.root_cause() == "ValueError: No space: 7.8 GiB of 15 GiB."


def test_consequences_are_no_root_cause(tmp_path: Path) -> None:
    log = EngineLog("a", tmp_path)
    log.path.write_text("RuntimeError: Engine core initialization failed. See root cause above.\n")
    assert log.root_cause() is None


def test_a_log_that_was_never_written_has_none(tmp_path: Path) -> None:
    assert EngineLog("a", tmp_path).root_cause() is None


def test_replica_names_become_file_names(tmp_path: Path) -> None:
    assert EngineLog("decode-base#a/b", tmp_path).path.name == "decode-base_a_b.log"


def test_processes_started_inside_print_into_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = EngineLog("a", tmp_path)
    with log.redirect():
        subprocess.run([sys.executable, "-c", "print('from the engine')"], check=True)
    print("from the replica")
    assert log.path.read_text() == "from the engine\n"
    assert capfd.readouterr().out == "from the replica\n"
