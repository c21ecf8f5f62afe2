"""How long work takes on a device: CUDA events around the replay of a graph, or a plain clock on CPU."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

Work = Callable[[], object]

WARM_UP = 2


class Repetitions(NamedTuple):
    """`most` of them, fewer if they take longer than `budget_s` in all, but at least `least`."""

    most: int
    least: int = 3
    budget_s: float = 2.0

    def of(self, once_ms: float) -> int:
        """How many, of work that takes so long."""
        return max(self.least, min(self.most, int(self.budget_s * 1000 / max(once_ms, 1e-3))))


def median_ms(work: Work, device: torch.device, repetitions: Repetitions, *, graph: bool = True) -> float:
    """The median time of `work`. With `graph`, CUDA replays it as one graph, as engines do: the launches of
    hundreds of kernels by Python are not in the time. The first runs are not timed either."""
    if device.type != "cuda":
        _warm_up(work)
        return _median(work, _clocked_ms, repetitions)
    if not graph:
        _warm_up(work)
        return _median(work, _events_ms, repetitions)
    # What is captured must have run on the same stream: kernels are built and workspaces made there.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        _warm_up(work)
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured, stream=stream):
        work()
    captured.replay()
    return _median(captured.replay, _events_ms, repetitions)


def _warm_up(work: Work) -> None:
    for _ in range(WARM_UP):
        work()


def _median(work: Work, times_ms: Callable[[Work, int], list[float]], repetitions: Repetitions) -> float:
    (once,) = times_ms(work, 1)
    return median(times_ms(work, repetitions.of(once)))


def _clocked_ms(work: Work, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def _events_ms(work: Work, count: int) -> list[float]:
    # Nothing waits between the repetitions, so the GPU never does for the host.
    events = [(_event(), _event()) for _ in range(count)]
    for begin, end in events:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return [float(begin.elapsed_time(end)) for begin, end in events]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
