"""`heliostat simulate`: runs the topologies asked for under each load, and shows what came of them."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from cluster.bars import progress_bars
from cluster.simulate_report import Cell, Report, SearchReport, Try
from cluster.simulate_setup import LOAD_LABELS, Load, hardware, loads, options
from cluster.simulate_table import render_report
from heliostat.spec import Spec
from heliostat.specfile import load_spec
from simulator.outcome import Outcome
from simulator.run import simulate
from simulator.search import Sizes, Trial, find_min_gpus
from simulator.slo import parse_slo
from simulator.summary import Summary, summarize
from simulator.topology import Arrangement, arrange


class _Runs:
    """The runs of one command: everything that is the same for all of them."""

    def __init__(self, args: argparse.Namespace, spec: Spec, progress: Progress) -> None:
        self._args = args
        self._hardware = hardware(args)
        self._options = options(args, spec)
        self._slo = parse_slo(args.slo)
        self._progress = progress

    def run(self, arrangement: Arrangement, load: Load, seed: int) -> tuple[Outcome, Summary]:
        with self._bar(f"{arrangement.topology} at {load.value:g}") as advance:
            outcome = simulate(
                arrangement,
                load.workload,
                self._hardware,
                directory=self._args.spec.parent,
                seed=seed,
                options=self._options,
                progress=advance,
            )
        return outcome, summarize(outcome, self._slo)

    def search(self, arrangement: Arrangement, load: Load) -> tuple[SearchReport, Summary | None]:
        """The search runs on the first seed only."""
        found = find_min_gpus(
            lambda scaled: self.run(scaled, load, self._args.seed)[1],
            arrangement,
            attainment=self._args.attainment,
            max_gpus=self._args.max_gpus,
            on_trial=lambda trial: self._progress.console.print(
                _told(arrangement, trial), highlight=False, markup=False, soft_wrap=True
            ),
        )
        sizes = {} if found.arrangement is None else _replicas(found.arrangement)
        report = SearchReport(
            topology=arrangement.topology,
            load=load.value,
            gpus=None if found.summary is None else found.summary.gpus,
            replicas=sizes,
            complete=found.complete,
            remark=found.remark,
            tries=tuple(
                Try(
                    replicas=_named(trial.replicas),
                    gpus=trial.gpus,
                    good_share=trial.good_share,
                    met=trial.met,
                )
                for trial in found.trials
            ),
        )
        return report, found.summary

    @contextmanager
    def _bar(self, label: str) -> Iterator[Callable[[float], None]]:
        task = self._progress.add_task(label, total=1.0)
        try:
            yield lambda share: self._progress.update(task, completed=share)
        finally:
            self._progress.remove_task(task)


def simulate_command(args: argparse.Namespace) -> int:
    """The whole command; raises HeliostatError before anything runs where flags do not fit together."""
    spec = load_spec(args.spec)
    topologies = dict.fromkeys([args.topology, *args.compare])
    arrangements = [arrange(spec, topology) for topology in topologies]
    with progress_bars() as progress:
        runs = _Runs(args, spec, progress)
        every = loads(args, spec)
        report = _found(runs, args, arrangements, every) if args.find_min_gpus else None
        report = report or _compared(runs, args, arrangements, every)
    if args.plots and report.cells:
        from simulator.plots import plot_goodput, plot_latency

        plot_latency(report.curves(), report.load, args.plots / "latency.svg")
        plot_goodput(report.curves(), report.load, args.plots / "goodput.svg")
    if args.json:
        print(report.model_dump_json(indent=1))
    else:
        render_report(report, Console())
    return 0


def _compared(
    runs: _Runs, args: argparse.Namespace, arrangements: list[Arrangement], every: list[Load]
) -> Report:
    cells = []
    for load in every:
        for arrangement in arrangements:
            summaries = []
            for seed in range(args.seed, args.seed + args.rounds):
                outcome, summary = runs.run(arrangement, load, seed)
                summaries.append(summary)
                if args.plots and load is every[-1] and seed == args.seed:
                    _timeline(args, outcome)
            cells.append(Cell(topology=arrangement.topology, load=load.value, rounds=tuple(summaries)))
    return _report(args, every, cells, [])


def _found(
    runs: _Runs, args: argparse.Namespace, arrangements: list[Arrangement], every: list[Load]
) -> Report:
    """The cells are of the smallest clusters."""
    cells, searches = [], []
    for load in every:
        for arrangement in arrangements:
            search, summary = runs.search(arrangement, load)
            searches.append(search)
            if summary is not None:
                cells.append(Cell(topology=arrangement.topology, load=load.value, rounds=(summary,)))
    return _report(args, every, cells, searches)


def _report(
    args: argparse.Namespace, every: list[Load], cells: list[Cell], searches: list[SearchReport]
) -> Report:
    return Report(
        spec=str(args.spec),
        gpu=args.gpu,
        load=LOAD_LABELS[every[0].name],
        cells=tuple(cells),
        searches=tuple(searches),
    )


def _timeline(args: argparse.Namespace, outcome: Outcome) -> None:
    from simulator.plots import plot_timeline

    plot_timeline(outcome, args.plots / f"timeline-{outcome.topology}.svg")


def _told(arrangement: Arrangement, trial: Trial) -> str:
    sizes = " ".join(f"{pool}={number}" for pool, number in _named(trial.replicas).items())
    verdict = "enough" if trial.met else "too few"
    share = f"{trial.good_share:.1%} within the SLO"
    return f"{trial.number:3} {arrangement.topology}: {trial.gpus} GPUs ({sizes}): {share}, {verdict}"


def _named(sizes: Sizes) -> dict[str, int]:
    return {f"{role}.{name}": number for (role, name), number in sizes.items()}


def _replicas(arrangement: Arrangement) -> dict[str, int]:
    return _named({key: pool.replicas.max for key, pool in arrangement.pools().items()})
