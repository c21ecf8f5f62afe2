"""`heliostat calibrate`: how long one model's engines take on this machine, as a file for the simulator."""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from cluster.calibrate_engines import route, setup, started
from cluster.calibrate_plan import sizes
from cluster.calibrate_probe import Probe
from cluster.calibrate_rounds import measure, measure_host
from cluster.calibrate_table import render
from heliostat.errors import HeliostatError
from heliostat.spec import Spec
from heliostat.specfile import load_spec
from simulator.timing import Calibration

INTERRUPTED = 130
"""The shell's exit status for a command that Ctrl-C ended."""

STORE_SHARE = 0.8
"""Of `transfer.memory_gib`, for the KV of one batch: a prefill that finds no room waits for the decodes."""

WIDTH = 100
"""Where no terminal says how wide it is."""


def calibrate_command(args: argparse.Namespace) -> int:
    """Measure, fit, write. Raises HeliostatError for everything an operator can mend."""
    spec = load_spec(args.spec)
    model = _model(spec, args.model, args.pool)
    check_writable(args.out)
    log = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        calibration = asyncio.run(_calibrate(spec, model, args.spec.parent, args.rounds, log))
    except (KeyboardInterrupt, asyncio.CancelledError):
        log.print(f"interrupted: the engines are stopped, and {args.out} is as it was")
        return INTERRUPTED
    save(calibration, args.out)
    render(calibration, Console() if sys.stdout.isatty() else Console(width=WIDTH))
    log.print(f"written to {args.out}")
    return 0


async def _calibrate(spec: Spec, name: str, directory: Path, rounds: int, log: Console) -> Calibration:
    task = asyncio.current_task()
    if task is not None:
        # As Ctrl-C, which asyncio turns into the same.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    model = spec.models[name]
    described = setup(spec, model, directory)
    async with started(spec, model, log.print) as engines:
        kv_tokens = min(engines.prefill.load().kv_tokens, engines.decode.load().kv_tokens)
        token_bytes = int(described.geometry.kv_bytes_per_token(described.kv_bits))
        store_tokens = int(STORE_SHARE * spec.transfer.memory_gib * 2**30 / token_bytes)
        chosen = sizes(spec.family, spec.decode[model.decode], kv_tokens, store_tokens)
        probe = Probe(
            name,
            described.geometry.vocab,
            token_bytes,
            random.Random(name),
            whole_prompt=spec.transfer.connector is not None,
        )
        total = chosen.count * (rounds + 1)
        with log.status("measuring …") as line:
            told = 0

            def done(what: str) -> None:
                nonlocal told
                told += 1
                line.update(f"{told}/{total} {what}")
                if not log.is_terminal and told % chosen.count == 0:
                    log.print(f"{told}/{total} measured")

            samples = await measure(probe, engines.prefill, engines.decode, chosen, rounds, done)
            host = None
            if engines.beside is not None:
                both = (engines.decode, engines.beside)
                host = await measure_host(probe, engines.prefill, both, rounds, line.update)
    return Calibration.of(described, samples, host)


def _model(spec: Spec, model: str | None, pool: str | None) -> str:
    """The model whose engines are measured. Raises HeliostatError."""
    if pool is None:
        return route(spec, model)[0]
    if model is not None:
        raise HeliostatError("--model and --pool both say what to measure; give one of them")
    for name, each in spec.models.items():
        if each.decode == pool:
            return name
    raise HeliostatError(
        f"no model of the spec decodes in a pool `{pool}`; its decode pools are {', '.join(spec.decode)}"
    )


def check_writable(path: Path) -> None:
    """Before minutes of measuring, not after. Raises HeliostatError."""
    if path.is_dir():
        raise HeliostatError(f"--out {path} is a directory; name a file")
    if not path.parent.is_dir():
        raise HeliostatError(f"--out {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise HeliostatError(f"--out {path}: nothing may be written to {path.parent}")


def save(calibration: Calibration, path: Path) -> None:
    """The whole file or, when that fails, what was there before. Raises HeliostatError."""
    new: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        new = Path(name)
        new.chmod(0o644)
        calibration.save(new)
        new.replace(path)
    except OSError as error:
        if new is not None:
            with suppress(OSError):
                new.unlink()
        raise HeliostatError(f"{path} cannot be written: {error.strerror}") from error
