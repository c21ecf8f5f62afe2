"""From the seconds of the transfer benchmark to its metrics and their goals."""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Literal, NamedTuple

from benchmarks.report import Metric
from benchmarks.transfer_sides import Setting

BANDWIDTH_TOKENS = 2048
"""From here on the goals for bandwidth hold; shorter prompts are bound by latency."""

SHM_GET_OVER_COPY = 0.5
NIXL_GET_OVER_RAW = 0.8
OVERHEAD_MS = 3.0


class Sample(NamedTuple):
    """Seconds for the same bytes, one after the other."""

    put_s: float
    get_s: float
    raw_s: float
    copy_s: float


class Run(NamedTuple):
    """One transport at one size; the first put faulted the store's memory in."""

    first_put_s: float
    samples: tuple[Sample, ...]


def summarize(setting: Setting, run: Run) -> dict[str, Metric]:
    """The metrics of one transport and size; `peer` is the raw path of a get, the plain copy of a put."""
    samples, gib = run.samples, setting.num_bytes / 2**30

    def each(read: Callable[[Sample], float]) -> float:
        return _figure(read(sample) for sample in samples)

    def beside(read: Callable[[Sample], float], peer: Callable[[Sample], float], unit: str) -> Metric:
        better: Literal["higher", "lower"] = "lower" if unit == "ms" else "higher"
        return Metric(value=each(read), unit=unit, better=better, peer=each(peer))

    metrics = {
        "put_bandwidth": beside(lambda s: gib / s.put_s, lambda s: gib / s.copy_s, "GiB/s"),
        "get_bandwidth": beside(lambda s: gib / s.get_s, lambda s: gib / s.raw_s, "GiB/s"),
        "put": beside(lambda s: s.put_s * 1e3, lambda s: s.copy_s * 1e3, "ms"),
        "get": beside(lambda s: s.get_s * 1e3, lambda s: s.raw_s * 1e3, "ms"),
        "overhead": Metric(
            value=each(lambda s: (s.get_s - s.raw_s) * 1e3), unit="ms", goal=OVERHEAD_MS, better="lower"
        ),
        "first_put": Metric(value=_figure([run.first_put_s * 1e3]), unit="ms", better="lower"),
    }
    if setting.tokens >= BANDWIDTH_TOKENS:
        shm, nixl = setting.transport == "shm", setting.transport == "nixl"
        metrics |= {
            "put_over_copy": _ratio(each(lambda s: s.copy_s / s.put_s), None),
            "get_over_copy": _ratio(each(lambda s: s.copy_s / s.get_s), SHM_GET_OVER_COPY if shm else None),
            "get_over_raw": _ratio(each(lambda s: s.raw_s / s.get_s), NIXL_GET_OVER_RAW if nixl else None),
        }
    return {f"{setting.transport}_{setting.tokens}_{key}": metric for key, metric in metrics.items()}


def _ratio(value: float, goal: float | None) -> Metric:
    """Of two bandwidths."""
    return Metric(value=value, unit="ratio", goal=goal, better="higher")


def _figure(values: Iterable[float]) -> float:
    return round(median(values), 4)
