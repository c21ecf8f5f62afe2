"""What a handoff costs on each transport, beside a plain copy of its bytes. `python -m benchmarks.transfer`

The KV is that of Qwen3-8B: 36 layers, 147,456 bytes a token, blocks of 32 tokens, each layer a region of its
own and the block ids scattered in runs, as in a vLLM engine. For each transport and prompt length an owner
and a reader, two processes, do in every round, one after the other:

    put     open, write and commit in the owner, into memory of the store that was used before
    get     get, wait, read and close in the reader; the KV is whole by then
    raw     the same bytes over the transport's own path, without our layer (`transfer_peers`)
    copy    the same bytes with one `memmove` in the reader

Both make their memory views within the time, as engines do. All memory is faulted in, and connections are
made, before anything is timed; a store's first put, which faults its memory in, is reported by itself. What
arrives is compared with what was put once for each size, outside the time. The order flips every round, and
every round takes several samples, of short prompts more. Figures are medians, ratios and differences the
medians of each sample's own.

`overhead` is the get beyond its bytes: its time minus that of the raw path. Noise can make it negative.

What this cannot show on one CPU machine:
- There is no network: NIXL reads over CMA, Gloo over the loopback device.
- Nothing else runs. Engines would compute meanwhile, on the same cores and the same memory bandwidth.
- The KV is whole before it is read; how much of a handoff a running prefill hides, real engines show in
  the second part (`transfer_hidden`).
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from rich.console import Console

from benchmarks.report import RESULTS, Metric, make_report, render, write_json
from benchmarks.transfer_figures import Run, Sample, summarize
from benchmarks.transfer_hidden import TOKENS as ENGINE_TOKENS
from benchmarks.transfer_hidden import hidden
from benchmarks.transfer_sides import Owner, Process, Reader, Setting, both_sides
from heliostat.errors import HeliostatError

TRANSPORTS = ("shm", "nixl", "nccl")
TOKENS = (32, 512, 2048, 8192)
ROUNDS = 5
SHARED_MEMORY = Path("/dev/shm")

SAMPLED_TOKENS = 1024
MIN_SAMPLES, MAX_SAMPLES = 3, 8
TABLE_WIDTH = 110
"""Where no terminal says how wide it is."""

log = Console(stderr=True, highlight=False, soft_wrap=True)


def samples_per_round(tokens: int) -> int:
    """More for short prompts, whose few milliseconds vary most."""
    return max(MIN_SAMPLES, min(MAX_SAMPLES, SAMPLED_TOKENS // tokens))


def measure(setting: Setting, rounds: int) -> Run:
    """Start both sides, check that KV arrives unchanged, and time `rounds`. Raises HeliostatError."""
    with both_sides(setting) as (owner, reader):
        # A side starts at the first thing it is asked; so both start beside each other.
        offered, cleared = owner.ask(Owner.raw_offer), reader.ask(Reader.clear)
        offer, _ = offered.result(), cleared.result()
        for met in (owner.ask(Owner.raw_meet), reader.ask(Reader.raw_meet, offer)):
            met.result()
        address = owner.ask(Owner.address).result()
        first_put_s = _check(owner, reader, address)
        for _ in range(2):  # the store's memory is used once around
            _handoff(owner, reader, address)
        samples = [
            _sample(owner, reader, address, raw_first=number % 2 == 1)
            for number in range(rounds)
            for _ in range(samples_per_round(setting.tokens))
        ]
        for closed in (owner.ask(Owner.close), reader.ask(Reader.close)):
            closed.result()
    return Run(first_put_s, tuple(samples))


def _check(owner: Process[Owner], reader: Process[Reader], address: str) -> float:
    """The first handoff, byte for byte; seconds of its put."""
    put_s, _ = _handoff(owner, reader, address)
    sums = owner.ask(Owner.checksum), reader.ask(Reader.checksum)
    if sums[0].result() != sums[1].result():
        raise HeliostatError("the KV that arrived is not the KV that was put")
    return put_s


def _handoff(owner: Process[Owner], reader: Process[Reader], address: str) -> tuple[float, float]:
    name = uuid4().hex
    put_s = owner.ask(Owner.put, name).result()
    return put_s, reader.ask(Reader.get, name, address).result()


def _sample(owner: Process[Owner], reader: Process[Reader], address: str, *, raw_first: bool) -> Sample:
    if raw_first:
        copy_s, raw_s = reader.ask(Reader.copy).result(), _raw(owner, reader)
        put_s, get_s = _handoff(owner, reader, address)
    else:
        put_s, get_s = _handoff(owner, reader, address)
        raw_s, copy_s = _raw(owner, reader), reader.ask(Reader.copy).result()
    return Sample(put_s, get_s, raw_s, copy_s)


def _raw(owner: Process[Owner], reader: Process[Reader]) -> float:
    """Seconds from when both sides had begun."""
    reading, serving = reader.ask(Reader.raw_read), owner.ask(Owner.raw_serve)
    began, ended = reading.result()
    return ended - max(began, serving.result())


def compare(args: argparse.Namespace) -> dict[str, Metric]:
    """The figures of every transport at every size. Raises HeliostatError."""
    metrics: dict[str, Metric] = {}
    for tokens in args.tokens:
        for transport in args.transports:
            with _directory() as directory:
                setting = Setting(transport, tokens, directory)
                run = measure(setting, args.rounds)
            figures = summarize(setting, run)
            put, get, overhead = (
                figures[f"{transport}_{tokens}_{key}"] for key in ("put", "get", "overhead")
            )
            log.print(
                f"{transport:<4} {tokens:5} tokens  put {put.value:8.2f} ms  get {get.value:8.2f} ms  "
                f"beyond the bytes {overhead.value:6.2f} ms"
            )
            metrics |= figures
    return metrics


@contextmanager
def _directory() -> Iterator[Path]:
    """Ours alone, in shared memory, and gone afterwards."""
    directory = SHARED_MEMORY / f"heliostat-bench-{os.getpid()}"
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="benchmarks.transfer", description="What a handoff costs.")
    top.add_argument("--rounds", type=_above(0), default=ROUNDS, help="(%(default)s)")
    top.add_argument("--tokens", type=_above(1), nargs="+", default=TOKENS, help="prompt lengths")
    top.add_argument("--transports", choices=TRANSPORTS, nargs="+", default=TRANSPORTS)
    top.add_argument("--no-engines", action="store_true", help="leave out what real engines show")
    top.add_argument(
        "--engine-tokens", type=_above(1), nargs="+", default=ENGINE_TOKENS, help="their prompts"
    )
    top.add_argument(
        "--out",
        type=Path,
        help="JSON file; default: the committed one, in a run with defaults",
    )
    return top


def _above(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) <= least:
            raise argparse.ArgumentTypeError(f"{text} is not above {least}")
        return int(text)

    return number


def output(args: argparse.Namespace) -> Path | None:
    """Where the result goes: a part of the measurement does not replace the committed one."""
    if args.out is not None:
        return Path(args.out)
    asked = (args.rounds, tuple(args.tokens), tuple(args.transports), tuple(args.engine_tokens))
    whole = asked == (ROUNDS, TOKENS, TRANSPORTS, ENGINE_TOKENS) and not args.no_engines
    return RESULTS / "transfer.json" if whole else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; a missed goal is a result, not a failure."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        metrics = compare(args)
        if not args.no_engines:
            metrics |= hidden(args.transports, args.engine_tokens, args.rounds)
    except (HeliostatError, BrokenProcessPool) as error:
        print(f"benchmarks.transfer: {error}", file=sys.stderr)
        return 1
    report = make_report(args.rounds, metrics)
    if (path := output(args)) is not None:
        write_json(report, path)
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
    render(report, console, title="What a handoff costs", value="Heliostat", peer="raw or copy")
    return 0


def _on_sigterm(number: int, frame: object) -> NoReturn:
    """Leave through the contexts, which remove what was made."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
