"""`heliostat bench`: puts a load on a server and says how it was answered."""

import argparse
import asyncio
import random
import resource
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

import heliostat
from cluster.api_key import key
from cluster.bars import progress_bars
from cluster.bench_args import DEFAULT_REQUESTS
from cluster.bench_figures import Slo, by_model, figures
from cluster.bench_load import Limit, closed_loop, open_loop
from cluster.bench_record import Record, Sender
from cluster.bench_report import Lag, Report, count_warnings, length_warnings
from cluster.bench_requests import alternating
from cluster.bench_setup import Setup, set_up
from cluster.bench_table import render_report
from cluster.bench_transport import transport_for
from cluster.percentiles import Percentiles
from heliostat.client import AsyncClient
from heliostat.errors import HeliostatError
from router.loop_watch import LoopWatch

INTERRUPTED = 130


def bench_command(args: argparse.Namespace) -> int:
    """Exit status 1 where a request failed. Raises HeliostatError before the first one is measured."""
    allow_connections()
    if args.json:
        check_writable(args.json)
    with progress_bars() as progress:
        run = Run(args, progress)
        try:
            asyncio.run(run.all())
        except KeyboardInterrupt:
            if not run.began:
                raise
            run.interrupted = True
    report = run.report()
    render_report(report, Console())
    if args.json:
        args.json.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if run.interrupted:
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


class Run:
    """One run; what it has measured is there also when it was interrupted."""

    _setup: Setup
    _sender: Sender
    _watch: LoopWatch
    _bar: TaskID
    _began_s: float
    _elapsed_s: float
    _cpu_s: float

    def __init__(self, args: argparse.Namespace, progress: Progress) -> None:
        self.began = self.interrupted = False
        self._args = args
        self._progress = progress
        self._records: list[Record] = []
        self._warmed: list[Record] = []
        self._failed = 0

    async def all(self) -> None:
        """Set-up, warm-up, and what is measured."""
        args = self._args
        transport = transport_for(args.url)
        async with AsyncClient(
            args.url,
            api_key=key(),
            timeout_s=args.timeout,
            answer_timeout_s=args.timeout,
            max_retries=0,
            transport=transport,
        ) as client:
            self._setup = await set_up(args, client)
            self._say_how_exact()
            await self._warm_up(client)
            self._sender = Sender(client, self._setup.asking, self._note)
            self._watch = LoopWatch(asyncio.get_running_loop())
            self._bar = self._progress.add_task("", total=args.duration or self._requests)
            cpu_s = time.process_time()
            self._began_s, self.began = self._sender.clock(), True
            self._watch.start()
            try:
                await self._drive()
            finally:
                self._watch.stop()
                self._elapsed_s = self._sender.clock() - self._began_s
                self._cpu_s = time.process_time() - cpu_s

    @property
    def _requests(self) -> int | None:
        return None if self._args.duration else self._args.requests or DEFAULT_REQUESTS

    async def _warm_up(self, client: AsyncClient) -> None:
        if number := self._args.warmup:
            sender = Sender(client, self._setup.asking, self._warmed.append)
            streams = self._args.concurrency
            await closed_loop(sender, self._setup.sessions("warm-up", number), Limit(number), streams=streams)

    async def _drive(self) -> None:
        args, sessions = self._args, self._setup.sessions("run", self._requests)
        limit = Limit(self._requests, self._began_s + args.duration if args.duration else None)
        if args.rate is None:
            await closed_loop(self._sender, sessions, limit, streams=args.concurrency)
        else:
            rng = random.Random(f"{self._setup.seed} arrivals")
            await open_loop(self._sender, alternating(sessions), limit, rate_per_s=args.rate, rng=rng)

    def _say_how_exact(self) -> None:
        words, args = self._setup.words, self._args
        if words is not None and not words.exact:
            about = f"prompts have about {args.prompt_tokens} tokens, one a word"
            text = f"warning: {about}: {args.url} does not say how it counts"
            self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _note(self, record: Record) -> None:
        self._records.append(record)
        self._failed += record.failure is not None
        done = record.ended_s - self._began_s if self._args.duration else len(self._records)
        text = f"{len(self._records) - self._failed} answered, {self._failed} failed"
        self._progress.update(self._bar, completed=done, description=text)

    def report(self) -> Report:
        """Of what was measured, once it has begun."""
        args, setup, elapsed_s = self._args, self._setup, self._elapsed_s
        slo = Slo(ttft_ms=args.slo_ttft_ms, tpot_ms=args.slo_tpot_ms)
        total = figures(self._records, elapsed_s, slo)
        lag = Lag(
            late_ms=Percentiles.of(record.late_ms for record in self._records if args.rate),
            stall_p99_ms=self._watch.stalls.quantile(0.99),
            cpu_share=self._cpu_s / elapsed_s,
        )
        if setup.rows:
            again = "prompts were asked more than once, and may have come from a cache"
            warnings: tuple[str, ...] = (again,) if len(self._records) > len(setup.rows) else ()
        else:
            warnings = length_warnings(total, args.prompt_tokens)
        warm_failed = sum(each.failure is not None for each in self._warmed)
        return Report(
            version=heliostat.__version__,
            url=args.url,
            models=setup.models,
            load=f"{args.rate:g} requests/s (Poisson)" if args.rate else f"{args.concurrency} at a time",
            asked=setup.describe(),
            seed=setup.seed,
            slo=slo,
            elapsed_s=elapsed_s,
            interrupted=self.interrupted,
            unfinished=self._sender.sent - len(self._records),
            warmup_ok=len(self._warmed) - warm_failed,
            warmup_failed=warm_failed,
            total=total,
            by_model=by_model(setup.models, self._records, elapsed_s, slo) if len(setup.models) > 1 else {},
            lag=lag,
            warnings=(*warnings, *count_warnings(total), *lag.warnings(total.ttft_ms.p50)),
        )
