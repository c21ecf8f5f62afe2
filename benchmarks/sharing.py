"""SUN against dedicated decode: one load, one machine, one run. `python -m benchmarks.sharing`

Both sides are up in one cluster (`specs/sharing.yaml`) and use the same three prefill replicas:

    dedicated   base, home, mirror, each on a decode replica of its own
    SUN         base, home, mirror, all on one shared decode replica

Model popularity is Zipf-skewed. Rounds alternate between the sides, the order flips every round, and both
sides get the same models, prompt lengths and output lengths. Figures are medians over the rounds, ratios the
medians of each round's ratio. The goals are SUN's own: twice the throughput per decode replica at a TPOT at
most 5 % higher.

What this cannot show on one CPU machine:
- A decode replica has no hardware of its own: all replicas, the router and this load generator share the
  cores. An idle dedicated replica hands its cores to the others, while an idle GPU is simply lost. So the
  throughput *per replica* counts replicas here, not hardware: with equal totals its ratio is 3 by
  construction. Tokens per decode CPU second is the honest figure for what sharing saves: it grows only
  because batches are fuller and fewer engine steps make the same tokens.
- The model is tiny, so a step costs the engine's own Python, not the reading of weights from memory. That
  reading is what a fuller batch saves on a GPU.
- Prefill and the router work on the same cores and may bound the total before decode does; then the shared
  replica's batches stay small, and larger `--max-tokens` shows more of the difference.
- TPOT holds the prefill replicas' bursts on the same cores; disaggregation would keep them apart.
- PSS splits a page among all processes that map it, and seven engines map the same libraries. A replica on
  a machine of its own holds more than its part here.
- Prefill replicas are not shared by SUN and not counted in any figure per replica.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple, NoReturn

from rich.console import Console

from benchmarks.load import Drive, closed_loop, open_loop, run_load
from benchmarks.measure import OUTPUT_TOKENS, Sample, Side, check_equal_tokens, draw_requests, measure
from benchmarks.report import RESULTS, Metric, make_report, render, write_json
from benchmarks.server import running_cluster, wait_until_ready
from cluster.percentiles import percentile
from heliostat.errors import HeliostatError

SPEC = Path(__file__).resolve().parent / "specs" / "sharing.yaml"
MODELS = ("base", "home", "mirror")
SUN = Side("SUN", MODELS)
DEDICATED = Side("dedicated", tuple(f"{model}-alone" for model in MODELS))

EQUAL_PROMPTS = 2
WARM_UP_REQUESTS = 36

TABLE_WIDTH = 100
"""Where no terminal says how wide it is."""

log = Console(stderr=True, highlight=False, soft_wrap=True)


class Pair(NamedTuple):
    """Both sides in one round."""

    sun: Sample
    dedicated: Sample


class Figure(NamedTuple):
    """How a metric is read off a sample."""

    key: str
    unit: str
    better: Literal["higher", "lower"]
    read: Callable[[Sample], float]


class Ratio(NamedTuple):
    """SUN's figure over the dedicated one of the same round."""

    key: str
    better: Literal["higher", "lower"]
    goal: float | None
    read: Callable[[Sample], float]


RATIOS = (
    Ratio("tok_per_s_per_decode_replica_ratio", "higher", 2.0, lambda s: s.tok_per_s_per_replica),
    Ratio("tpot_p50_ratio", "lower", 1.05, lambda s: s.tpot_p50_ms),
    Ratio("tok_per_decode_cpu_s_ratio", "higher", None, lambda s: s.tok_per_cpu_s),
)


def figures(memory_kind: str) -> tuple[Figure, ...]:
    """What is reported of each side; `memory_kind` says what the system let us measure."""
    return (
        Figure("output_tok_per_s", "tok/s", "higher", lambda s: s.tok_per_s),
        Figure("tok_per_s_per_decode_replica", "tok/s", "higher", lambda s: s.tok_per_s_per_replica),
        Figure("tok_per_decode_cpu_s", "tok/CPU s", "higher", lambda s: s.tok_per_cpu_s),
        Figure("ttft_p50", "ms", "lower", lambda s: percentile(s.ttft_ms, 50)),
        Figure("ttft_p95", "ms", "lower", lambda s: percentile(s.ttft_ms, 95)),
        Figure("tpot_p50", "ms", "lower", lambda s: s.tpot_p50_ms),
        Figure("tpot_p95", "ms", "lower", lambda s: percentile(s.tpot_ms, 95)),
        Figure("handoff_kv", "MiB", "lower", lambda s: s.handoff_bytes / 2**20),
        Figure("decode_memory", f"MiB {memory_kind}", "lower", lambda s: s.memory.num_bytes / 2**20),
        Figure("decode_replicas", "replicas", "lower", lambda s: s.replicas),
    )


def summarize(exponent: float, pairs: Sequence[Pair]) -> dict[str, Metric]:
    """The metrics of one Zipf exponent, by key; `peer` is the dedicated side."""
    metrics = {
        f"zipf{exponent:g}_{ratio.key}": Metric(
            value=_figure(ratio.read(pair.sun) / ratio.read(pair.dedicated) for pair in pairs),
            unit="ratio",
            goal=ratio.goal,
            better=ratio.better,
        )
        for ratio in RATIOS
    }
    for figure in figures(pairs[0].sun.memory.kind):
        metrics[f"zipf{exponent:g}_{figure.key}"] = Metric(
            value=_figure(figure.read(pair.sun) for pair in pairs),
            unit=figure.unit,
            better=figure.better,
            peer=_figure(figure.read(pair.dedicated) for pair in pairs),
        )
    return metrics


def compare(url: str, args: argparse.Namespace, drive: Drive) -> dict[str, Metric]:
    """Check, warm up and measure both sides at every Zipf exponent. Raises HeliostatError."""
    check_equal_tokens(url, SUN, DEDICATED, prompts=EQUAL_PROMPTS)
    log.print("both sides answer with the same tokens")
    for side in (DEDICATED, SUN):
        # Exponent 0 draws all models alike, so that every replica is warm.
        run_load(url, draw_requests(side, WARM_UP_REQUESTS, exponent=0.0, seed=f"{args.seed} warm"), drive)
    metrics: dict[str, Metric] = {}
    for exponent in args.zipf:
        pairs = [_round(url, args, exponent, number, drive) for number in range(args.rounds)]
        metrics |= summarize(exponent, pairs)
    return metrics


def _round(url: str, args: argparse.Namespace, exponent: float, number: int, drive: Drive) -> Pair:
    samples: dict[str, Sample] = {}
    for side in (DEDICATED, SUN) if number % 2 == 0 else (SUN, DEDICATED):
        seed = f"{args.seed} {exponent} {number}"
        requests = draw_requests(
            side, args.requests, exponent=exponent, seed=seed, max_tokens=args.max_tokens
        )
        sample = samples[side.name] = measure(url, side, requests, drive)
        log.print(
            f"zipf {exponent:g} round {number + 1}/{args.rounds} {side.name:<9} {sample.wall_s:6.1f} s "
            f"{sample.tok_per_s:7.1f} tok/s  TPOT p50 {sample.tpot_p50_ms:6.2f} ms "
            f"{sample.tok_per_cpu_s:7.1f} tok per decode CPU s"
        )
    return Pair(samples[SUN.name], samples[DEDICATED.name])


def _figure(values: Iterable[float]) -> float:
    return round(median(values), 4)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="benchmarks.sharing", description="SUN against dedicated decode.")
    top.add_argument("--url", help="a local cluster of specs/sharing.yaml; default: start one")
    top.add_argument("--zipf", type=float, nargs="+", default=[1.0, 2.0], help="exponents (1 2)")
    top.add_argument("--rounds", type=positive, default=5, help="per exponent (%(default)s)")
    top.add_argument("--requests", type=positive, default=120, help="per round and side (%(default)s)")
    top.add_argument("--streams", type=positive, default=12, help="of the closed loop (%(default)s)")
    top.add_argument("--max-tokens", type=positive, default=OUTPUT_TOKENS, help="per answer (%(default)s)")
    top.add_argument("--rate", type=float, help="requests per second, in an open loop instead")
    top.add_argument("--seed", type=int, default=0, help="of everything drawn (%(default)s)")
    top.add_argument("--output", type=Path, default=RESULTS / "sharing.json", help="JSON file to write")
    return top


def positive(text: str) -> int:
    """For argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; a missed goal is a result, not a failure."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, on_sigterm)
    drive: Drive = (
        partial(open_loop, rate_per_s=args.rate, seed=args.seed)
        if args.rate
        else partial(closed_loop, streams=args.streams)
    )
    try:
        with cluster_at(args.url) as url:
            metrics = compare(url, args, drive)
    except HeliostatError as error:
        print(f"benchmarks.sharing: {error}", file=sys.stderr)
        return 1
    report = make_report(args.rounds, metrics)
    write_json(report, args.output)
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
    render(report, console, title="SUN against dedicated decode", value=SUN.name, peer=DEDICATED.name)
    return 0


def cluster_at(url: str | None) -> AbstractContextManager[str]:
    """The URL of the cluster that runs there, or of one of our own for as long as the context lasts."""
    if url is None:
        return running_cluster(SPEC)
    wait_until_ready(url.rstrip("/"))
    return nullcontext(url.rstrip("/"))


def on_sigterm(number: int, frame: object) -> NoReturn:
    """Leave through `running_cluster`, which stops what it started."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
