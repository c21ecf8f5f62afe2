"""What the steps of a model take on a GPU, with torch and no engine. `python -m benchmarks.gpu_calibrate`

A decoder of Qwen3-8B's geometry with random weights, made on the device in bfloat16: what a step takes does
not depend on what the weights say. Measured are

    decode      one step of batches of 1 to 256 over several contexts, with output head and greedy choice
    prefill     prompts of 128 to 32k tokens, and chunks of 2k behind 2k to 30k, without the head
    int4        the same, less of it, with torch's own int4 weight-only product
    copies      within the device, and from and to pinned host memory; those to it stand for handoffs

Steps are captured as CUDA graphs, with fused kernels for what stands between two matrix products, as engines
have it. Times are medians of CUDA events. A run writes a calibration file for 16 bits, one for int4, and
`gpu_calibrate.json` beside them: how far the roofline is off after it is corrected with the 16 bit samples,
and before (the peer). Int4 is in none of the corrections, so it shows whether fewer bytes are all there is.

What it leaves out:
- An engine's host: scheduling, block tables, sampling. A vLLM step is longer by that, and only `heliostat
  calibrate` on a running engine measures it. Efficiencies of kernels hold for both.
- Paged KV, and attention kernels other than torch's.
- Int4 kernels other than torch's, which engines' own (Marlin) leave behind in large batches.
- With `--layers` below the model's, the files are of that shorter model, and say so in `model` and
  `geometry`: the roofline's corrections carry over to the whole one, `coefficients` do not.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "pydantic": "pydantic",
    "msgspec": "msgspec",
    "yaml": "pyyaml",
    "rich": "rich",
}
"""By module; what pip calls it. A GPU machine may have the repository and torch, and no more."""

MODEL = "Qwen/Qwen3-8B"
TINY = "tiny"
ATTENTION = ("default", "flash", "cudnn")


def missing(modules: Sequence[str] = tuple(NEEDED)) -> list[str]:
    """Which of these cannot be imported, by their names in pip."""
    return [NEEDED.get(name, name) for name in modules if importlib.util.find_spec(name) is None]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="benchmarks.gpu_calibrate", description="What the steps of a model take on a GPU."
    )
    top.add_argument("--device", default="cuda", help="as torch names it (%(default)s)")
    top.add_argument("--geometry", default=MODEL, help=f"a known model, or `{TINY}`, for tests (%(default)s)")
    top.add_argument("--layers", type=int, help="measure a model of so many; default: all of them")
    top.add_argument("--attention", choices=ATTENTION, default="default", help="torch's kernel (%(default)s)")
    top.add_argument("--eager", action="store_true", help="leave element-wise kernels as torch has them")
    top.add_argument(
        "--out",
        type=Path,
        help="calibration file; default: benchmarks/results/calibration-GPU.json. The other two files go "
        f"beside it. Needed with `{TINY}`, which is no result",
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; a missed goal is a result, not a failure."""
    if lacking := missing():
        print(
            f"benchmarks.gpu_calibrate: {', '.join(lacking)} cannot be imported; install with "
            f"`pip install {' '.join(lacking)}`, or put the wheels on PYTHONPATH",
            file=sys.stderr,
        )
        return 1
    top = parser()
    args = top.parse_args(argv)
    if args.geometry == TINY and args.out is None:
        top.error(f"--geometry {TINY} measures nothing worth keeping: say with --out where it goes")
    # Not at the top: without what they need, nobody would read the line above.
    from benchmarks.gpu_run import Request, calibrate
    from heliostat.errors import HeliostatError

    try:
        calibrate(Request(args.device, args.geometry, args.layers, args.attention, args.eager, args.out))
    except HeliostatError as error:
        print(f"benchmarks.gpu_calibrate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
