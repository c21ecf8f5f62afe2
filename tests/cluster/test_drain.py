"""`heliostat-drain` waits for replicas, by what their processes are called."""

import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from cluster.drain import announce, replicas_here, wait_until_gone

NAME = "ray::ServeReplica:heliostat-decode-drained:decode-drained.decode"


@dataclass
class Clock:
    """Time that passes only where somebody sleeps."""

    time_s: float = 0.0
    looks: list[list[str]] = field(default_factory=list)

    def now_s(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds

    def replicas(self) -> list[str]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def test_it_waits_until_the_last_replica_is_gone() -> None:
    clock = Clock(looks=[["a", "b"], ["b"], ["b"], []])
    assert wait_until_gone(600.0, clock.replicas, clock.now_s, clock.sleep) == []
    assert clock.time_s == 3


def test_it_waits_no_longer_than_it_may() -> None:
    clock = Clock(looks=[["a"]])
    assert wait_until_gone(5.0, clock.replicas, clock.now_s, clock.sleep) == ["a"]
    assert clock.time_s == 5


def test_a_replica_is_found_by_its_process() -> None:
    script = (
        f"import setproctitle, sys; setproctitle.setproctitle({NAME!r}); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        assert "heliostat-decode-drained:decode-drained" in replicas_here()
        process.stdin.close()
    assert "heliostat-decode-drained:decode-drained" not in replicas_here()


def test_a_head_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    problem = announce(1, node_id="ff" * 28)
    assert problem
