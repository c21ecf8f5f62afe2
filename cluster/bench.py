"""`heliostat bench`: puts a load on a server and says how it was answered."""

import argparse
import asyncio
import resource
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from cluster.bars import progress_bars
from cluster.bench_run import Run
from cluster.bench_saved import save_requests
from cluster.bench_table import render_report
from heliostat.errors import HeliostatError

INTERRUPTED = 130


def bench_command(args: argparse.Namespace) -> int:
    """Exit status 1 where a request failed. Raises HeliostatError before the first one is measured."""
    allow_connections()
    for path in (args.json, args.save_requests):
        if path:
            check_writable(path)
    return carry_out(Run(args, progress_bars()), args.json, args.save_requests)


def carry_out(run: Run, json: Path | None = None, saved: Path | None = None) -> int:
    """What was measured is told, whatever ends the run. Raises what `Run.all` raises, but for Ctrl-C."""
    try:
        with run.progress:
            asyncio.run(run.all())
    except KeyboardInterrupt:
        if not run.began:
            raise
    finally:
        if run.began:
            report = run.report()
            render_report(report, Console())
            if json:
                json.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
            if saved:
                save_requests(saved, run.saved())
    if report.interrupted:
        return INTERRUPTED
    return 1 if report.total.failed else 0


def allow_connections() -> None:
    """As many open files as this process may have: each request under way is a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):  # macOS has a limit below the one that it names
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_writable(path: Path) -> None:
    """Before the run, whose figures would be lost. Raises HeliostatError."""
    try:
        path.open("a").close()
    except OSError as error:
        raise HeliostatError(f"{path} cannot be written: {error.strerror}") from error
