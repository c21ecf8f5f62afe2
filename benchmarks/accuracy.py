"""How good are modules that share? Held-out exact match of every way of sharing, beside the full fine-tune.

    python -m benchmarks.accuracy                 three seeds, 600 samples a cell, half an hour on 2 cores
    python -m benchmarks.accuracy --seeds 1 --tasks home

The peer of every cell is the ordinary full fine-tune of the same run: what a user has who shares nothing.
Goals: SUN, PrefillShare and ICaRus within 3 points of it, QSUN within 3 points of SUN, naive pairing clearly
worse (here: by 30 points at least). Quantized decode modules are made by the run itself, by `--method`.
Samples are single questions, so that batches are short; three seeds draw other samples, orders and adapters.
"""

import argparse
import runpy
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import cast

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy_cells import Inputs, measure
from benchmarks.report import REPOSITORY, RESULTS, Metric, make_report, write_json
from finetune.data import make_encoder, read_samples
from finetune.quantize import QuantizeSettings, quantize
from finetune.quantize_layers import QuantizeMethod
from finetune.settings import DataSettings

BASE = REPOSITORY / "examples" / "quickstart" / "weights" / "base"
TASKS = ("home", "mirror", "spell")
SAMPLES = 600
TRAINING = 64 * 300
POINTS = 3.0
CLEARLY = 30.0
Write = Callable[..., None]


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--bits", nargs="*", type=int, default=[4], help="of the quantized decode modules")
    parser.add_argument("--method", default="gptq", choices=("awq", "gptq", "rtn"))
    parser.add_argument("--steps", type=int, default=200, help="of SUN, QSUN and PrefillShare, all weights")
    parser.add_argument("--no-adapters", action="store_true", help="without the cells of adapters")
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy.json")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        groups = _groups(Path(folder), arguments)
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(measure, [inputs for _, inputs in groups]))
    cells: dict[str, dict[str, list[float]]] = {}
    for (task, _), result in zip(groups, found, strict=True):
        for cell, value in result.items():
            cells.setdefault(task, {}).setdefault(cell, []).append(value)
    metrics = {
        f"{task}: {cell}{suffix}": metric
        for task, by_cell in cells.items()
        for cell, values in by_cell.items()
        for suffix, metric in (("", _metric(cell, by_cell)), (" (spread)", _spread(values)))
    }
    _print(cells)
    write_json(make_report(arguments.seeds, metrics), arguments.out)


def _groups(folder: Path, arguments: argparse.Namespace) -> list[tuple[str, Inputs]]:
    """Samples of each task and seed, and the quantized bases that all of them share."""
    made = runpy.run_path(str(REPOSITORY / "examples" / "modules" / "make_data.py"))
    write_training, write_held_out = cast(Write, made["write_training"]), cast(Write, made["write_held_out"])
    encoder = make_encoder(BASE)
    quantized = {}
    for bits in arguments.bits:
        quantized[bits] = folder / f"int{bits}"
        calibration = folder / "calibration.jsonl"
        if not calibration.exists():
            write_training(calibration, "home", 256, 99)
        quantize(BASE, quantized[bits], QuantizeSettings(QuantizeMethod(arguments.method), bits), calibration)
    groups = []
    for task in arguments.tasks:
        for seed in range(arguments.seeds):
            data, held_out = folder / f"{task}-{seed}.jsonl", folder / f"{task}-{seed}-held-out.jsonl"
            write_training(data, task, TRAINING, seed, plain=True)
            write_held_out(held_out, task, SAMPLES, seed)
            samples = read_samples(DataSettings(str(data), held_out=held_out), encoder, 2048, seed)
            pairs = samples.train, samples.held_out
            inputs = Inputs(BASE, quantized, seed, *pairs, arguments.steps, not arguments.no_adapters)
            groups.append((task, inputs))
    return groups


def _metric(cell: str, by_cell: dict[str, list[float]]) -> Metric:
    full, value = mean(by_cell["full"]), mean(by_cell[cell])
    goal, better = None, "higher"
    if cell.startswith("naive"):
        goal, better = full - CLEARLY, "lower"
    elif cell.startswith("qsun"):
        goal = mean(by_cell["sun"]) - POINTS
    elif cell.startswith(("sun", "prefillshare", "icarus")) and "untrained" not in cell:
        goal = full - POINTS
    return Metric(
        value=round(value, 2),
        unit="%",
        goal=None if goal is None else round(goal, 2),
        better="higher" if better == "higher" else "lower",
        peer=round(full, 2),
    )


def _spread(values: list[float]) -> Metric:
    return Metric(value=round(max(values) - min(values), 2), unit="points", better="lower")


def _print(cells: dict[str, dict[str, list[float]]]) -> None:
    table = Table(title="Held-out exact match, %: mean (lowest to highest)", box=box.SIMPLE_HEAD)
    table.add_column("cell")
    for task in cells:
        table.add_column(task, justify="right")
    for cell in next(iter(cells.values())):
        rows = [by_cell[cell] for by_cell in cells.values()]
        table.add_row(cell, *(f"{mean(row):.1f} ({min(row):.1f} to {max(row):.1f})" for row in rows))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
