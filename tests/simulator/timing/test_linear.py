from heliostat.spec import SimTiming
from simulator.timing import Chunk, LinearTiming, StepLine, Timing

SPEC = SimTiming(
    prefill_tokens_per_s=1000.0, step_ms=10.0, per_request_ms=1.0, per_kilotoken_ms=2.0, handoff_gib_per_s=4.0
)


def test_the_terms_of_the_spec_add_up() -> None:
    timing: Timing = LinearTiming(SPEC)
    assert timing.decode_line(3) == StepLine(13.0, 0.002)
    assert timing.step_ms(3, 500, ()) == 14.0
    assert timing.step_ms(3, 500, (Chunk(100, 7), Chunk(50, 0))) == 164.0
    assert timing.handoff_ms(2**30) == 250.0


def test_prefill_alone_takes_no_decode_step() -> None:
    assert LinearTiming(SPEC).step_ms(0, 0, (Chunk(100, 0),)) == 100.0


def test_a_rate_of_zero_is_free() -> None:
    timing = LinearTiming(SimTiming())
    assert timing.step_ms(8, 9000, (Chunk(100, 0),)) == 0.0
    assert timing.handoff_ms(2**30) == 0.0
