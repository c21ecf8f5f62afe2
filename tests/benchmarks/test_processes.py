"""Facts about the accounting of process trees, on this process."""

import os

import psutil
import pytest

from benchmarks.processes import cpu_seconds, cpu_spent, resident_memory
from heliostat.errors import HeliostatError


def test_cpu_seconds_grow_with_work() -> None:
    before = cpu_seconds([os.getpid()])
    start = sum(os.times()[:2])
    while sum(os.times()[:2]) - start < 0.1:
        sum(range(1000))
    spent = cpu_spent(before, cpu_seconds([os.getpid()]))
    assert spent == pytest.approx(0.1, abs=0.05)


def test_only_the_difference_of_processes_that_live_on_is_counted() -> None:
    assert cpu_spent({1: 5.0, 2: 9.0}, {1: 6.5, 3: 0.25}) == 1.75


def test_memory_says_what_it_counts() -> None:
    memory = resident_memory([os.getpid()])
    assert memory.kind in ("PSS", "RSS")
    assert 2**20 < memory.num_bytes <= psutil.virtual_memory().total


def test_a_replica_that_is_not_here_is_an_error_for_people() -> None:
    nobody = max(psutil.pids()) + 1_000_000
    with pytest.raises(HeliostatError, match=f"no process {nobody} here"):
        cpu_seconds([nobody])
