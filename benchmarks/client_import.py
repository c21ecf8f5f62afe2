"""How soon an agent author can ask: `heliostat-client` from nothing. `python -m benchmarks.client_import`

The wheel is built from this checkout and installed into an empty environment; `openai` (the peer) into
another. Every import is a process of its own, the two take turns, and bytecode is compiled before anything is
timed. The install that is timed is a second one, out of uv's cache: how fast an index is, is not asked here.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import median

from hatchling.builders.wheel import WheelBuilder
from rich.console import Console

from benchmarks.report import REPOSITORY, RESULTS, Metric, make_report, render, write_json

GOAL_MS = 300.0
UV = str(Path(sysconfig.get_path("scripts")) / "uv")
OURS = "from heliostat import AsyncClient, Client"
PEERS = "from openai import AsyncOpenAI, OpenAI"
TIMED = "import time; began = time.perf_counter(); {}; print((time.perf_counter() - began) * 1000)"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="imports of each side (default: 21)")
    parser.add_argument("--output", type=Path, default=RESULTS / "client_import.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = str(REPOSITORY / "heliostat")
        (wheel,) = WheelBuilder(root).build(directory=folder, versions=["standard"])
        ours_s, ours = _installed(Path(folder) / "ours", wheel)
        peers_s, peers = _installed(Path(folder) / "peers", "openai")
        rounds = [(_import_ms(ours, OURS), _import_ms(peers, PEERS)) for _ in range(args.rounds)]
        counts = _packages(ours), _packages(peers)
    metrics = {
        "install": Metric(value=ours_s, unit="s", better="lower", peer=peers_s),
        "packages": Metric(value=counts[0], unit="", better="lower", peer=counts[1]),
        "import": Metric(
            value=median(ms for ms, _ in rounds),
            unit="ms",
            goal=GOAL_MS,
            better="lower",
            peer=median(ms for _, ms in rounds),
        ),
    }
    report = make_report(args.rounds, metrics)
    write_json(report, args.output)
    render(report, Console(), title="From nothing to a client", value="heliostat-client", peer="openai")
    return 0


def _installed(folder: Path, what: str) -> tuple[float, Path]:
    """Seconds of a second install, and the interpreter."""
    python = folder / "bin" / "python"
    install = [UV, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
    install += ["--constraints", str(REPOSITORY / "constraints.txt"), what]
    index = ["--default-index", os.environ["PIP_INDEX_URL"]] if "PIP_INDEX_URL" in os.environ else []
    for options in (index, ["--offline"]):
        subprocess.run(
            [UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True
        )
        began_s = time.perf_counter()
        subprocess.run([*install, *options], check=True)
        took_s = time.perf_counter() - began_s
    return took_s, python


def _import_ms(python: Path, statement: str) -> float:
    command = [str(python), "-I", "-c", TIMED.format(statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _packages(python: Path) -> int:
    listed = subprocess.run([UV, "pip", "freeze", "--python", str(python)], check=True, capture_output=True)
    return len(listed.stdout.splitlines())


if __name__ == "__main__":
    sys.exit(main())
