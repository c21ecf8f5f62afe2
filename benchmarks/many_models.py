"""Many LoRA models on two cores, beside plain multi-LoRA vLLM. `python -m benchmarks.many_models`

Two parts, both over real engines and real HTTP:

    models    2 to 128 models under one uniform load, SUN with adapters (`many_models_load.py`)
    agents    sessions in which every turn asks another model, ICaRus and PrefillShare
              (`many_models_agents.py`)

The peer is vLLM's own API server with all adapters in one engine and two threads. Ours is two engines with
one thread each, a router and a proxy. Base and adapters are random, made for the run and deleted after it.
Both sides stand at the same time and are asked in turn; the order changes every round. Figures are medians
over the rounds, ratios the medians of each round's ratio. The first request that fails ends the run with an
error, so no result holds failures.

What this cannot show on one CPU machine:
- Our router, proxy, second engine and Ray take their part of the same two cores. With GPUs they are on other
  cores. `others_cores` is what the side that nobody asks takes of the cores meanwhile.
- Our prefill and decode engines have a core each, so an unequal load leaves one of them half idle, while
  plain vLLM's two threads work on whatever there is. On a cluster the pools have as many replicas as the
  load needs.
- Two threads of one engine wait for each other at every small product, so they lose more than ours to
  whatever else runs here. `--plain-threads 1` is the peer without that; compare with the faster of the two.
- The plugin of this project is loaded on both sides, because it is installed: LoRA kernels that are exact
  and faster on CPU than vLLM's. That is a favor to the peer, which decodes with adapters.
- A step of 24 million parameters costs less of an adapter's reading from memory than one of billions.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import many_models_agents, many_models_load
from benchmarks.many_models_family import NOT_KEYS_AND_VALUES, make_family
from benchmarks.many_models_plain import THREADS
from benchmarks.many_models_specs import ICARUS, PREFILL_SHARE
from benchmarks.report import RESULTS, Metric, Report, make_report, render, write_json
from benchmarks.sharing import on_sigterm, positive
from heliostat.errors import HeliostatError

OUT = RESULTS / "many_models.json"
TABLE_WIDTH = 120
"""Where no terminal says how wide it is."""

WAYS = (ICARUS, PREFILL_SHARE)


def models_part(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Metric]]:
    """The figures of one size after the other. Raises HeliostatError."""
    family = make_family(folder / "family", max(args.models))
    for count in args.models:
        yield many_models_load.compare(
            family.first(count),
            folder,
            rounds=args.rounds,
            requests=args.requests,
            threads=args.plain_threads,
        )


def agents_part(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Metric]]:
    """The same, for agents. Raises HeliostatError."""
    family = make_family(folder / "family", max(args.agents), NOT_KEYS_AND_VALUES)
    for way in args.ways:
        yield from many_models_agents.compare(
            family,
            folder,
            ways=[way],
            models=args.agents,
            rounds=args.rounds,
            sessions=args.sessions,
            threads=args.plain_threads,
        )


PARTS: dict[str, Callable[[argparse.Namespace, Path], Iterator[dict[str, Metric]]]] = {
    "models": models_part,
    "agents": agents_part,
}
"""Each part's figures begin with its name."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="benchmarks.many_models", description="Many LoRA models.")
    top.add_argument("--part", choices=tuple(PARTS), help="only this part; the other's figures are kept")
    top.add_argument("--models", type=positive, nargs="+", default=[2, 8, 32, 128], help="(2 8 32 128)")
    top.add_argument("--agents", type=positive, nargs="+", default=[2, 4, 8], help="models (2 4 8)")
    top.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS, help="to serve agents (all)")
    top.add_argument("--rounds", type=positive, default=3, help="(%(default)s)")
    top.add_argument("--requests", type=positive, default=96, help="per round and side (%(default)s)")
    top.add_argument("--sessions", type=positive, default=4, help="per round and way (%(default)s)")
    top.add_argument("--plain-threads", type=positive, default=THREADS, help="of the peer (%(default)s)")
    top.add_argument("--quick", action="store_true", help="one short round of the fewest models")
    top.add_argument("--output", type=Path, help="JSON file to write; with --quick none by default")
    return top


def kept(path: Path | None, part: str | None, fresh: Report) -> dict[str, Metric]:
    """The figures in `path` that go on to hold when only `part` runs; none when all run.

    What is measured again replaces its like. Raises HeliostatError when figures of the other part are of
    another commit, machine or number of rounds.
    """
    if part is None or path is None or not path.exists():
        return {}
    old = Report.model_validate_json(path.read_bytes())
    if (old.commit, old.machine, old.rounds) == (fresh.commit, fresh.machine, fresh.rounds):
        return dict(old.metrics)
    others = {key: metric for key, metric in old.metrics.items() if not key.startswith(f"{part}_")}
    if others:
        raise HeliostatError(
            f"{path}: the other part is of commit {old.commit}, {old.machine}, {old.rounds} rounds; "
            "run both parts, or name another file with --output"
        )
    return others


def run(args: argparse.Namespace) -> Report:
    """Measure, and write after every size what there is. Raises HeliostatError."""
    metrics = kept(args.output, args.part, make_report(args.rounds, {}))
    report = make_report(args.rounds, metrics)
    for name in [args.part] if args.part else PARTS:
        with tempfile.TemporaryDirectory(prefix="many-models-") as folder:
            for figures in PARTS[name](args, Path(folder)):
                metrics |= figures
                report = make_report(args.rounds, metrics)
                if args.output is not None:
                    write_json(report, args.output)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """A missed goal is a result, not a failure."""
    args = parser().parse_args(argv)
    if args.quick:
        args.rounds, args.requests, args.sessions = 1, 32, 2
        args.models, args.agents = args.models[:1], args.agents[:1]
    elif args.output is None:
        args.output = OUT
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        report = run(args)
    except HeliostatError as error:
        print(f"benchmarks.many_models: {error}", file=sys.stderr)
        return 1
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
    render(report, console, title="Many LoRA models", value="ours", peer="plain vLLM")
    return 0


if __name__ == "__main__":
    sys.exit(main())
