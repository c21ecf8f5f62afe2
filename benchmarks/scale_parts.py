"""What `benchmarks.scale` varies, and its last table: routers against the size of the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from rich import box
from rich.table import Table

from benchmarks.report import Metric
from benchmarks.scale_costs import Costs, Traffic, routers_needed, share
from benchmarks.scale_runs import CHAT, PROMPT

SIDES: Final = {
    "ours": ("marginal_latency", False),
    "oracle": ("marginal_latency", True),
    "power_of_two": ("power_of_two", False),
    "least_requests": ("least_requests", False),
    "round_robin": ("round_robin", False),
}
"""By the name in the figures: the decode policy, and whether answers' lengths are known."""

KEYS: Final[Mapping[str, tuple[str, Literal["higher", "lower"]]]] = {
    "tpot_p50": ("ms", "lower"),
    "tpot_p99": ("ms", "lower"),
    "ttft_p95": ("ms", "lower"),
    "good_share": ("share", "higher"),
    "refused_share": ("share", "lower"),
    "preemptions": ("requests", "lower"),
    "imbalance": ("ratio", "lower"),
}
"""Unit and direction of the fields of `benchmarks.scale_runs.Knowledge`."""

BEATS_S: Final = (0.1, 0.01, 0.5, 2.0)
"""Between two beats; production's first, to which the others are held. 10 ms is nearly every change."""

REQUESTS_PER_PREFILL_S: Final = 1.36
"""60 % of what a prefill replica can do with these prompts (`benchmarks.scale_runs.prefill_capacity`)."""

TPOT_MS: Final = 8.0
"""Of decode replicas under that load, as many as prefill replicas (`speed_tpot_p99` is 12)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run. `sizes`: virtual seconds and seeds, by decode replicas."""

    speed_replicas: int = 1000
    speed_s: float = 600.0
    speed_load: float = 0.6
    sizes: Mapping[int, tuple[float, int]] = field(
        default_factory=lambda: {10: (300.0, 3), 100: (120.0, 3), 1000: (80.0, 1)}
    )
    routers: tuple[int, ...] = (1, 4, 16)
    load: float = 0.85
    beat_size: int = 100
    cost_rounds: int = 5
    cost_replicas: tuple[int, ...] = (10, 100, 1000, 4000)
    index_blocks: int = 200_000

    @property
    def rounds(self) -> int:
        """The most seeds of any size."""
        return max(seeds for _, seeds in self.sizes.values())


def traffic(replicas: int, *, kv_events: bool = True) -> Traffic:
    """So many replicas, half of them of each role, under the load of `speed`."""
    half = replicas // 2
    requests = half * REQUESTS_PER_PREFILL_S
    return Traffic(half, half, requests, PROMPT.mean, CHAT.mean, TPOT_MS, kv_events)


def limits_table(costs: Costs) -> tuple[dict[str, Metric], Table]:
    """Routers needed, with and without KV events, and what takes most of a router where they do not do.

    0 routers in the figures: no number of them is enough.
    """
    table = Table(title="Routers needed", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in ("replicas", "requests/s", "KV events", "routers", "connections", "fixed share", "largest"):
        table.add_column(column)
    metrics: dict[str, Metric] = {}
    for replicas in (20, 100, 200, 500, 1000, 2000, 4000, 8000):
        for kv_events in (True, False):
            load = traffic(replicas, kv_events=kv_events)
            needed = routers_needed(costs, load)
            # Where no number is enough, the share is that of very many: what is left is what does not shrink.
            busy = share(costs, load, needed or 4096)
            name = f"limit_{replicas}_replicas{'' if kv_events else '_without_kv_events'}"
            metrics[f"{name}_routers"] = Metric(value=needed or 0, unit="routers", better="lower")
            metrics[f"{name}_fixed_share"] = Metric(value=busy.fixed, unit="core", better="lower")
            table.add_row(
                f"{replicas:,}",
                f"{load.requests:,.0f}",
                "yes" if kv_events else "no",
                f"{needed}" if needed else "none is enough",
                f"{needed * replicas:,}" if needed else "",
                f"{busy.fixed:.2f}",
                busy.largest,
            )
    return metrics, table
