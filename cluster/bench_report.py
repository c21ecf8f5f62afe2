"""What `heliostat bench --json` writes, and what a reader must be warned of."""

from cluster.bench_figures import Figures, Frozen, Slo
from cluster.bench_flags import Flags
from cluster.percentiles import Percentiles
from heliostat.errors import TimedOutError

SMALL_MS = 5.0
"""Timers are late by some milliseconds on any machine that does something else, too."""

NOTICED = 0.1
"""A delay of our own that is more than this share of what is measured is worth a warning."""

BUSY = 0.8


class Lag(Frozen):
    """What this program itself did to the figures.

    `late_ms`: how much later than due requests were sent (an open loop's; nothing is due in a closed one).
    `stall_p99_ms`: 99 of 100 times what had come was looked at within it. `cpu_share`: of one core.
    """

    late_ms: Percentiles
    stall_p99_ms: float
    cpu_share: float

    def warnings(self, ttft_p50_ms: float | None) -> tuple[str, ...]:
        """Where the figures say something of this program, and not of the server alone."""
        noticed_ms = max(SMALL_MS, NOTICED * (ttft_p50_ms or 0.0))
        late = [
            f"{what} {ms:.0f} ms"
            for what, ms in (("sent requests", self.late_ms.p99 or 0.0), ("read answers", self.stall_p99_ms))
            if ms > noticed_ms
        ]
        found = [f"{' and '.join(late)} late (p99), which is in the latencies"] if late else []
        if self.cpu_share > BUSY:
            found.append(f"took {self.cpu_share:.0%} of a core, about all it can use")
        remedy = "lower the load, or share it among several `heliostat bench` on other cores"
        return (f"this program {', and '.join(found)}; {remedy}",) if found else ()


class Report(Frozen):
    """One run. `unfinished` requests had begun when it was interrupted; they are in no figure.

    `by_model` is empty for a single model. `load`, `asked` and `warnings` are for people.
    """

    version: str
    url: str
    models: tuple[str, ...]
    load: str
    asked: str
    flags: Flags
    seed: int
    slo: Slo
    elapsed_s: float
    interrupted: bool
    unfinished: int
    warmup_ok: int
    warmup_failed: int
    total: Figures
    by_model: dict[str, Figures]
    lag: Lag
    warnings: tuple[str, ...]


def count_warnings(total: Figures) -> tuple[str, ...]:
    """Where tokens were not counted by the server."""
    if total.counted == total.ok:
        return ()
    return (
        f"{total.ok - total.counted} of {total.ok} answers came without a token count, so their pieces were "
        "counted, which may hold several tokens: TPOT is at most what is said, tokens/s at least",
    )


def length_warnings(total: Figures, asked: int) -> tuple[str, ...]:
    """Where the server counted other prompts than were meant."""
    least, most = total.prompt_tokens_least, total.prompt_tokens_most
    if most == 0 or least == most == asked:
        return ()
    had = f"{least}" if least == most else f"{least} to {most}"
    return (f"prompts were to have {asked} tokens, and the server counted {had}",)


def timeout_warnings(total: Figures, timeout_s: float) -> tuple[str, ...]:
    """Where the slowest are in no percentile."""
    count = sum(each.count for each in total.errors if each.kind == TimedOutError.__name__)
    if not count:
        return ()
    return (
        f"{count} requests got nothing for {timeout_s:g} s (--timeout) and failed: "
        "the slowest answers are in no latency, whose tail is longer than what is said",
    )
