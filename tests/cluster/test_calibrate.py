"""Calibration against engines whose times are known, in virtual time."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import msgspec
import pytest

from cluster.calibrate import save
from cluster.calibrate_plan import Sizes, sizes
from cluster.calibrate_probe import Probe
from cluster.calibrate_rounds import measure, measure_host
from cluster.cli import main
from heliostat.errors import HeliostatError
from heliostat.spec import Family, Pool
from heliostat.status import ReplicaStatus
from heliostat.wire import (
    DecodeRequest,
    Load,
    PrefillRequest,
    PrefillResult,
    Ticket,
    TokenDelta,
    TokenFrame,
)
from simulator.timing import (
    Calibrated,
    Calibration,
    Chunk,
    Coefficients,
    DecodeSample,
    Geometry,
    PrefillSample,
    Samples,
    Setup,
    fit,
)
from simulator.timing.calibration import HostShare
from simulator.virtual_time import run

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml"
BLOCK = 32
TOKEN_BYTES = 2048
TRUE = Coefficients(
    decode_step_ms=2.0,
    decode_request_ms=0.05,
    decode_token_ms=0.0002,
    prefill_step_ms=5.0,
    prefill_token_ms=0.01,
    prefill_pair_ms=0.00001,
    handoff_ms=3.0,
    handoff_gib_ms=4000.0,
)
SAVE_MS = 1.0
"""The part of a handoff that a prefill's answer waits for."""


@dataclass
class FakeEngine:
    """Takes exactly what `TRUE` says, and half as much again for each other one that decodes."""

    timing: Calibrated = field(default_factory=lambda: Calibrated(TRUE))
    kept: set[tuple[int, ...]] = field(default_factory=set)
    running: dict[str, int] = field(default_factory=dict)
    tickets: set[str] = field(default_factory=set)
    beat: asyncio.Future[None] | None = None
    others: list["FakeEngine"] = field(default_factory=list)

    async def start(self) -> None:
        """Nothing to load."""

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        ids = request.token_ids
        blocks = [ids[: end + BLOCK] for end in range(0, len(ids) - len(ids) % BLOCK, BLOCK)]
        cached = BLOCK * sum(block in self.kept for block in blocks)
        self.kept.update(blocks)
        ms = self.timing.step_ms(0, 0, (Chunk(len(ids) - cached, cached),)) + SAVE_MS
        await asyncio.sleep(ms / 1e3)
        self.tickets.add(request.request_id)
        ticket = Ticket(
            ticket_id=request.request_id,
            transport="shm",
            address="",
            domain="d",
            prefix_digest="",
            num_tokens=len(ids),
            num_blocks=len(blocks),
            num_bytes=len(ids) * TOKEN_BYTES,
            owner="fake",
            expires_at_s=0.0,
        )
        return PrefillResult(ticket, self.load(), cached, SAVE_MS)

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield await self.prefill(request)

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        assert request.ticket is not None
        load_ms = self.timing.handoff_ms(request.ticket.num_bytes) - SAVE_MS
        await asyncio.sleep(load_ms / 1e3)
        left = msgspec.msgpack.decode(request.sampling)["max_tokens"]
        self.running[request.request_id] = len(request.token_ids)
        first: float | None = load_ms
        while left:
            await self._step()
            self.running[request.request_id] += 1
            left -= 1
            yield TokenFrame((TokenDelta(0, (7,)),), not left, self.load(), first)
            first = None
        del self.running[request.request_id]

    async def _step(self) -> None:
        """One beat for the whole batch, begun by whoever asks first."""
        if self.beat is None:
            loop = asyncio.get_running_loop()
            beat = self.beat = loop.create_future()
            ms = self.timing.step_ms(len(self.running), sum(self.running.values()), ())
            ms *= 1 + 0.5 * sum(bool(other.running) for other in self.others)
            loop.call_later(ms / 1e3, self._end_step, beat)
        await self.beat

    def _end_step(self, beat: "asyncio.Future[None]") -> None:
        self.beat = None
        beat.set_result(None)

    async def release(self, ticket_id: str) -> bool:
        self.tickets.discard(ticket_id)
        return True

    async def sweep(self) -> None:
        """No lease."""

    def load(self) -> Load:
        return Load("fake", len(self.running), 0, 0, 0.0, 0)

    async def status(self, pid: int) -> ReplicaStatus:
        return ReplicaStatus.of(self.load(), (), pid)

    async def check_health(self) -> None:
        """Always well."""

    def stop(self) -> None:
        """No processes."""


def probe() -> Probe:
    return Probe("m", 100, TOKEN_BYTES, random.Random(0))


def chosen() -> Sizes:
    return sizes(Family(base="b", max_model_len=2048), Pool(weights="w"), 0, 100_000)


def test_the_fit_recovers_the_times_of_an_engine() -> None:
    samples = run(measure(probe(), FakeEngine(), FakeEngine(), chosen(), 2, lambda _: None))
    found = fit(samples)
    for name, true in TRUE.model_dump().items():
        assert getattr(found, name) == pytest.approx(true, rel=0.03), name


def test_a_cached_prefix_is_taken_from_the_engines_own_count() -> None:
    sample = run(probe().prefill(FakeEngine(), 64, 100))
    assert (sample.new_tokens, sample.cached_tokens) == (68, 96)
    assert sample.ms == pytest.approx(Calibrated(TRUE).step_ms(0, 0, (Chunk(68, 96),)))


def test_only_the_prompts_that_a_decode_reads_keep_their_tickets() -> None:
    prefill = FakeEngine()
    run(probe().prefill(prefill, 64, 64))
    assert not prefill.tickets


def test_every_step_is_of_the_whole_batch() -> None:
    steps = run(probe().decode(FakeEngine(), FakeEngine(), 8, 64))
    line = Calibrated(TRUE).decode_line(8)
    assert steps.mean_ms == pytest.approx(line.base_ms + line.per_token_ms * steps.context_tokens, rel=0.01)


def test_sizes_stay_within_the_specs_limits() -> None:
    found = sizes(Family(base="b", max_model_len=700), Pool(weights="w", max_running=4), 2000, 1200)
    assert max(new + cached for new, cached in found.prefill) < 700
    assert max(found.decode) == (4, 64)
    assert all(requests * context <= 1200 for requests, context in found.decode)


def test_limits_that_leave_nothing_to_measure_are_said() -> None:
    with pytest.raises(HeliostatError, match=r"family.max_model_len 130.*raise max_model_len"):
        sizes(Family(base="b", max_model_len=130), Pool(weights="w"), 0, 100_000)


def test_engines_that_slow_each_other_down_say_by_how_much() -> None:
    one, two = FakeEngine(), FakeEngine()
    one.others, two.others = [two], [one]
    host = run(measure_host(probe(), FakeEngine(), (one, two), 1, lambda _: None, time.perf_counter))
    # Both begin and end by themselves, so a little of each is alone.
    assert host.slowdowns[2] == pytest.approx(1.5, rel=0.1)
    assert host.cores_per_engine == pytest.approx(1.0, rel=0.1)  # the clock says that all time is CPU time


HOST = HostShare(cores=2, cores_per_engine=1.2, slowdowns={2: 1.6, 3: 2.4})


def calibration() -> Calibration:
    timing, sizes_ = Calibrated(TRUE), (1, 2, 4, 8)
    samples = Samples(
        decode=tuple(
            DecodeSample(requests=each, context_tokens=each**3, step_ms=timing.step_ms(each, each**3, ()))
            for each in sizes_
        ),
        prefill=tuple(
            PrefillSample(new_tokens=64 * each, ms=timing.step_ms(0, 0, (Chunk(64 * each, 0),)))
            for each in sizes_
        ),
    )
    setup = Setup(
        machine="none",
        engine="fake",
        versions={},
        measured_on=date(2026, 1, 1),
        model="m",
        geometry=Geometry(4, 128, 4, 2, 32, 256, 101),
    )
    return Calibration.of(setup, samples, HOST)


def test_a_host_that_two_engines_slow_down_carries_fewer() -> None:
    assert HOST.engines == pytest.approx(1.25)


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "cal.json"
    out.write_text("old")
    save(calibration(), out)
    assert Calibration.model_validate_json(out.read_text()) == calibration()
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "cal.json"
    (out / "inside").mkdir(parents=True)
    with pytest.raises(HeliostatError, match="cannot be written"):
        save(calibration(), out)
    assert list(tmp_path.iterdir()) == [out]


def test_too_few_samples_are_no_calibration() -> None:
    with pytest.raises(HeliostatError, match="too few for a calibration"):
        fit(Samples())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model", "hom"], "did you mean `home`?"),
        (["--pool", "nope"], "its decode pools are base, spell"),
        (["--pool", "base", "--model", "home"], "give one of them"),
    ],
)
def test_what_does_not_exist_is_said_before_anything_starts(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(QUICKSTART), "--out", str(tmp_path / "c.json"), *flags]) == 1
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_place_where_nothing_can_be_written_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(QUICKSTART), "--out", str(tmp_path / "no" / "c.json")]) == 1
    assert f"there is no directory {tmp_path / 'no'}" in capsys.readouterr().err
