"""One run of a benchmark: set-up, warm-up, and what is measured."""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator

from rich.progress import Progress, TaskID

import heliostat
from cluster.bench_args import DEFAULT_REQUESTS
from cluster.bench_figures import Slo, by_model, figures
from cluster.bench_flags import flags_of
from cluster.bench_load import Limit, closed_loop, open_loop
from cluster.bench_record import Record, Sender
from cluster.bench_report import Lag, Report, count_warnings, length_warnings, timeout_warnings
from cluster.bench_requests import Session, alternating
from cluster.bench_saved import SavedRequest
from cluster.bench_setup import Setup, set_up
from cluster.bench_transport import transport_for
from cluster.percentiles import Percentiles
from heliostat.client import AsyncClient
from router.loop_watch import LoopWatch


class Run:
    """What it has measured is there also when it did not come to its end.

    `began`: something is measured; `ended`: all of it.
    """

    _setup: Setup
    _sender: Sender
    _watch: LoopWatch
    _bar: TaskID
    _began_s: float

    def __init__(self, args: argparse.Namespace, progress: Progress) -> None:
        self.began = self.ended = False
        self.progress = progress
        self._args = args
        self._records: list[Record] = []
        self._warmed: list[Record] = []
        self._failed = 0
        self._elapsed_s = self._cpu_s = 0.0

    async def all(self) -> None:
        """Raises HeliostatError before something is measured."""
        args = self._args
        transport = transport_for(args.url)
        async with AsyncClient(
            args.url,
            timeout_s=args.timeout,
            answer_timeout_s=args.timeout,
            max_retries=0,
            transport=transport,
        ) as client:
            self._setup = await set_up(args, client)
            self._say_how_exact()
            sessions = self._setup.sessions("run", self._requests)
            await self._warm_up(client)
            self._sender = Sender(client, self._setup.asking, self.note)
            self._watch = LoopWatch(asyncio.get_running_loop())
            self._bar = self.progress.add_task("", total=args.duration or self._requests)
            cpu_s = time.process_time()
            self._began_s, self.began = self._sender.clock(), True
            self._watch.start()
            try:
                await self._drive(sessions)
                self.ended = True
            finally:
                self._watch.stop()
                self._elapsed_s = self._sender.clock() - self._began_s
                self._cpu_s = time.process_time() - cpu_s

    def note(self, record: Record) -> None:
        """A request that is measured is over."""
        self._records.append(record)
        self._failed += record.failure is not None
        done = record.ended_s - self._began_s if self._args.duration else len(self._records)
        text = f"{len(self._records) - self._failed} answered, {self._failed} failed"
        self.progress.update(self._bar, completed=done, description=text)

    @property
    def _requests(self) -> int | None:
        return None if self._args.duration else self._args.requests or DEFAULT_REQUESTS

    async def _warm_up(self, client: AsyncClient) -> None:
        if number := self._args.warmup:
            sender = Sender(client, self._setup.asking, self._warmed.append)
            streams = self._args.concurrency
            await closed_loop(sender, self._setup.sessions("warm-up", number), Limit(number), streams=streams)

    async def _drive(self, sessions: Iterator[Session]) -> None:
        args = self._args
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
            self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def saved(self) -> Iterator[SavedRequest]:
        """Each request that is over."""
        return (SavedRequest.of(record, self._began_s) for record in self._records)

    def report(self) -> Report:
        """Of what was measured, once it has begun."""
        args, setup, elapsed_s = self._args, self._setup, self._elapsed_s
        slo = Slo(ttft_ms=args.slo_ttft_ms, tpot_ms=args.slo_tpot_ms, e2e_ms=args.slo_e2e_ms)
        total = figures(self._records, elapsed_s, slo)
        lag = Lag(
            late_ms=Percentiles.of(record.late_ms for record in self._records if args.rate),
            stall_p99_ms=self._watch.stalls.quantile(0.99),
            cpu_share=self._cpu_s / elapsed_s if elapsed_s else 0.0,
        )
        flags = flags_of(args, setup, self._requests)
        warnings = setup.again_warnings(len(self._warmed) + len(self._records))
        if not setup.rows:
            warnings += length_warnings(total, args.prompt_tokens)
        if args.rate is None:
            warnings += setup.stream_warnings(args.concurrency, self._requests)
        warnings += setup.chance_warnings()
        warnings += timeout_warnings(total, args.timeout)
        warm_failed = sum(each.failure is not None for each in self._warmed)
        return Report(
            version=heliostat.__version__,
            url=args.url,
            models=setup.models,
            load=f"{args.rate:g} requests/s (Poisson)" if args.rate else f"{flags.streams} at a time",
            asked=setup.describe(),
            flags=flags,
            seed=setup.seed,
            slo=slo,
            elapsed_s=elapsed_s,
            interrupted=not self.ended,
            unfinished=self._sender.sent - len(self._records),
            warmup_ok=len(self._warmed) - warm_failed,
            warmup_failed=warm_failed,
            total=total,
            by_model=by_model(setup.models, self._records, elapsed_s, slo) if len(setup.models) > 1 else {},
            lag=lag,
            warnings=(*warnings, *count_warnings(total), *lag.warnings(total.ttft_ms.p50)),
        )
