"""The simulator against a real cluster, under the same loads. `python -m benchmarks.calibration`

1. `heliostat calibrate` measures one prefill and two decode engines of the family, alone and side by side
   (or `--calibration` names a file of it);
2. a cluster of `specs/sharing.yaml` serves closed loops of 1, 4 and 16 streams, once to models on one shared
   decode replica (SUN) and once to models with a decode replica each (dedicated);
3. the simulator runs the very same requests, streams and spec, on the calibration's times and host.

What routers and proxies compute, and what a step takes longer in a cluster, is measured at two small loads
of their own. Nothing is fitted to the compared loads. What the model leaves out is in `docs/calibration.md`.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.calibration_figures import Case, Figures, compare, measured, middle, simulated
from benchmarks.calibration_front import STREAMS, Front, measure_front
from benchmarks.calibration_load import ClosedLoop, fixed_streams
from benchmarks.load import LoadRequest, run_load
from benchmarks.measure import draw_requests
from benchmarks.report import RESULTS, Metric, make_report, render, write_json
from benchmarks.sharing import DEDICATED, SPEC, SUN, TABLE_WIDTH, cluster_at, on_sigterm, positive
from heliostat.errors import HeliostatError
from heliostat.specfile import load_spec
from simulator.profile import Hardware
from simulator.router import Options
from simulator.run import simulate
from simulator.timing import Calibration, load_calibration
from simulator.topology import arrange

POOL = "shared"
CALIBRATION = RESULTS / "calibration-cpu.json"
WARM_UP_REQUESTS = 36
FIT_STEPS = 5
"""Each takes most of what is missing."""

MIN_REQUESTS = 24
"""Of one load: with one stream, a few would be all."""

log = Console(stderr=True, highlight=False, soft_wrap=True)


def calibrate(rounds: int) -> Calibration:
    """Run `heliostat calibrate`. Raises HeliostatError when it fails; it says why itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CALIBRATION.name
        flags = ["--pool", POOL, "--rounds", str(rounds), "--out", str(path)]
        command = [sys.executable, "-m", "cluster.cli", "calibrate", str(SPEC), *flags]
        # stdout is for our own table.
        done = subprocess.run(command, check=False, stdout=sys.stderr)
        if done.returncode:
            raise HeliostatError(f"`heliostat calibrate` ended with status {done.returncode}; see above")
        return load_calibration(path)


def draw(case: Case, seed: int, number: int, calls: int) -> list[LoadRequest]:
    """The requests of one round of one case."""
    side = SUN if case.side == SUN.name else DEDICATED
    count = max(MIN_REQUESTS, case.streams * calls)
    return draw_requests(side, count, exponent=0.0, seed=f"{seed} {case.streams} {number}")


def run_cluster(url: str, args: argparse.Namespace) -> tuple[Front, dict[Case, Figures]]:
    """Warm up, then all cases in turn, several rounds of them. Raises HeliostatError."""
    for side in (SUN, DEDICATED):
        warm = draw_requests(side, WARM_UP_REQUESTS, exponent=0.0, seed=f"{args.seed} warm")
        run_load(url, warm, partial(fixed_streams, streams=4))
    front = measure_front(url, SUN, str(args.seed))
    log.print(
        f"around the engines: {front.request_ms:.1f} CPU ms per request, {front.token_ms:.3f} per token, "
        f"{front.idle_cores:.2f} cores when idle"
    )
    rounds: dict[Case, list[Figures]] = {case: [] for case in cases(args.streams)}
    for number in range(args.rounds):
        for case, done in rounds.items():
            requests = draw(case, args.seed, number, args.calls)
            done.append(measured(run_load(url, requests, partial(fixed_streams, streams=case.streams))))
            log.print(f"round {number + 1}/{args.rounds} {_told(case, done[-1])}")
    return front, {case: middle(done) for case, done in rounds.items()}


def cases(streams: Sequence[int]) -> list[Case]:
    """Both sides under every load."""
    return [Case(side.name, each) for each in streams for side in (SUN, DEDICATED)]


def run_simulator(calibration: Calibration, front: Front, args: argparse.Namespace) -> dict[Case, Figures]:
    """The same cases in virtual time. Raises HeliostatError."""
    calibration = in_cluster(calibration, front)
    virtual = {}
    for case in cases(args.streams):
        rounds = []
        for number in range(args.rounds):
            requests = tuple(draw(case, args.seed, number, args.calls))
            rounds.append(_simulated(calibration, front, requests, case.streams))
        virtual[case] = middle(rounds)
        log.print(f"simulated {_told(case, virtual[case])}")
    return virtual


def in_cluster(calibration: Calibration, front: Front) -> Calibration:
    """With what a decode step takes longer in a cluster than in `heliostat calibrate`: Ray's processes are
    nicer, and the replica sends every step's tokens. From the load of `Front`, which is not compared."""
    for _ in range(FIT_STEPS):
        coefficients = calibration.coefficients
        more_ms = front.tpot_ms - _simulated(calibration, front, front.load, STREAMS).tpot_p50_ms
        step_ms = max(coefficients.decode_step_ms + more_ms, 0.0)
        changed = coefficients.model_copy(update={"decode_step_ms": step_ms})
        calibration = calibration.model_copy(update={"coefficients": changed})
    return calibration


def _simulated(
    calibration: Calibration, front: Front, requests: tuple[LoadRequest, ...], streams: int
) -> Figures:
    spec = load_spec(SPEC)
    outcome = simulate(
        arrange(spec, "spec"), ClosedLoop(requests, streams, tuple(spec.models)),
        Hardware(calibration=calibration), directory=SPEC.parent, options=host_options(calibration, front),
    )  # fmt: skip
    if any(outcome.requests.refused) or len(outcome.requests) != len(requests):
        raise HeliostatError(f"{streams} streams: the simulated cluster did not answer every request")
    return simulated(outcome.requests)


def host_options(calibration: Calibration, front: Front) -> Options:
    """The host as the simulator knows it: its cores in engines, less what runs always.

    Raises HeliostatError for a calibration that was not made on cores.
    """
    host = calibration.host
    if host is None:
        raise HeliostatError("the calibration file has no `host`: it was not measured on a CPU machine")
    per_engine = host.cores_per_engine
    return Options(
        host_cores=max(host.engines - front.idle_cores / per_engine, 0.1),
        front_ms=front.request_ms,
        front_token_ms=front.token_ms / per_engine,
    )


def _told(case: Case, figures: Figures) -> str:
    return (
        f"{case.side:<9} {case.streams:>2} streams {figures.tok_per_s:7.1f} tok/s  "
        f"TPOT p50 {figures.tpot_p50_ms:6.2f} ms  TTFT p50 {figures.ttft_p50_ms:6.1f} ms"
    )


def host_metrics(calibration: Calibration, front: Front) -> dict[str, Metric]:
    """What the simulation was told of the host, so that a reader can run it again."""
    engines = host_options(calibration, front).host_cores or 0.0
    return {
        "host_engines_at_full_pace": Metric(value=round(engines, 3), unit="engines", better="higher"),
        "front_cpu_per_request": Metric(value=round(front.request_ms, 3), unit="ms", better="lower"),
        "front_cpu_per_token": Metric(value=round(front.token_ms, 4), unit="ms", better="lower"),
        "decode_step_in_cluster": Metric(
            value=round(in_cluster(calibration, front).coefficients.decode_step_ms, 3),
            unit="ms",
            better="lower",
            peer=round(calibration.coefficients.decode_step_ms, 3),
        ),
        "idle_cores": Metric(value=round(front.idle_cores, 3), unit="cores", better="lower"),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="benchmarks.calibration", description="Simulated against measured.")
    top.add_argument("--calibration", type=Path, help="a file of `heliostat calibrate`; default: make one")
    top.add_argument("--url", help="a local cluster of specs/sharing.yaml; default: start one")
    top.add_argument("--streams", type=positive, nargs="+", default=[1, 4, 16], help="loads (1 4 16)")
    top.add_argument("--rounds", type=positive, default=3, help="of every load (%(default)s)")
    top.add_argument("--calls", type=positive, default=10, help="per stream and round (%(default)s)")
    top.add_argument("--seed", type=int, default=0, help="of everything drawn (%(default)s)")
    top.add_argument("--output", type=Path, default=RESULTS / "calibration.json", help="JSON file to write")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; a missed goal is a result, not a failure."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        calibration = load_calibration(args.calibration) if args.calibration else calibrate(args.rounds)
        with cluster_at(args.url) as url:
            front, real = run_cluster(url, args)
        virtual = run_simulator(calibration, front, args)
    except HeliostatError as error:
        print(f"benchmarks.calibration: {error}", file=sys.stderr)
        return 1
    report = make_report(args.rounds, compare(real, virtual) | host_metrics(calibration, front))
    write_json(report, args.output)
    calibration.save(args.output.with_name(CALIBRATION.name))
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
    render(report, console, title="The simulator against a real cluster", value="simulated", peer="measured")
    return 0


if __name__ == "__main__":
    sys.exit(main())
