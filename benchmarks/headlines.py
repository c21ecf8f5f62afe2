"""The papers' headlines on the simulator: `python -m benchmarks.headlines` makes figures, plots and a table.

No GPU is used. What was assumed is in `benchmarks.headline_assumptions`; docs/results/README.md reads the
figures.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks import headline_icarus, headline_prefillshare, headline_qsun
from benchmarks.headline_plots import draw
from benchmarks.headline_runs import Bench, Metrics
from benchmarks.headline_sun_decode import measure_decode
from benchmarks.headline_sun_service import measure_sensitivity, measure_service
from benchmarks.report import REPOSITORY, RESULTS, Metric, make_report, render, write_json

EXPERIMENTS: dict[str, tuple[Callable[[Bench], Metrics], ...]] = {
    "sun": (measure_decode, measure_service, measure_sensitivity),
    "qsun": (headline_qsun.measure,),
    "prefillshare": (headline_prefillshare.measure,),
    "icarus": (headline_icarus.measure,),
}

OUTPUT = RESULTS / "headlines.json"
PLOTS = REPOSITORY / "docs" / "results"


def main() -> None:
    arguments = _arguments()
    bench = Bench(
        seeds=(1,) if arguments.quick else tuple(range(1, arguments.rounds + 1)),
        processes=arguments.processes,
        quick=arguments.quick,
    )
    console = Console(width=150)
    metrics: Metrics = {} if arguments.quick else _kept(arguments.output, arguments.only)
    for name in arguments.only:
        console.print(f"{name} ...")
        for measure in EXPERIMENTS[name]:
            metrics |= measure(bench)
    in_order = {key: metrics[key] for name in EXPERIMENTS for key in metrics if key.startswith(f"{name}_")}
    report = make_report(len(bench.seeds), in_order)
    render(report, console, title="The papers' headlines, simulated", value="ours", peer="baseline")
    if not arguments.quick:
        write_json(report, arguments.output)
        for path in draw(in_order, PLOTS):
            console.print(f"wrote {path.relative_to(REPOSITORY)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: small runs, nothing is written")
    parser.add_argument("--rounds", type=int, default=3, help="seeds; figures are medians over them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=tuple(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser.parse_args()


def _kept(path: Path, replaced: list[str]) -> Metrics:
    """The figures of the experiments that are not made again."""
    if not path.exists():
        return {}
    figures = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    return {
        key: Metric.model_validate(figure)
        for key, figure in figures.items()
        if key.partition("_")[0] not in replaced
    }


if __name__ == "__main__":
    main()
