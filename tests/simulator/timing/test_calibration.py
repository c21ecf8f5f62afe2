import json
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from heliostat.errors import HeliostatError
from simulator.timing import (
    H100,
    KNOWN,
    Calibrated,
    Calibration,
    Chunk,
    Coefficients,
    Corrections,
    DecodeSample,
    HandoffSample,
    PrefillSample,
    Roofline,
    Samples,
    Setup,
    Timing,
    accuracy,
    correct,
    fit,
    load_calibration,
)
from simulator.timing.least_squares import fit_relative

TRUE = Coefficients(
    decode_step_ms=4.0,
    decode_request_ms=0.05,
    decode_token_ms=3e-5,
    prefill_step_ms=5.0,
    prefill_token_ms=0.02,
    prefill_pair_ms=1e-6,
    handoff_ms=0.7,
    handoff_gib_ms=25.0,
)
SETUP = Setup(
    machine="a test",
    engine="none",
    versions={"vllm": "0.32.0"},
    measured_on=date(2026, 11, 21),
    model="Qwen/Qwen3-8B",
    geometry=KNOWN["Qwen/Qwen3-8B"],
)


def measure(timing: Timing, noise: float = 0.0) -> Samples:
    """What an engine would give that takes exactly what `timing` says, or is off by so much at most."""
    random = np.random.default_rng(1)

    def seen(ms: float) -> float:
        return float(ms * random.uniform(1 - noise, 1 + noise))

    return Samples(
        decode=tuple(
            DecodeSample(requests=b, context_tokens=b * c, step_ms=seen(timing.step_ms(b, b * c, ())))
            for b, c in product((1, 2, 4, 16, 64, 128, 256), (128, 1024, 4096))
        ),
        prefill=tuple(
            PrefillSample(
                new_tokens=new, cached_tokens=old, ms=seen(timing.step_ms(0, 0, (Chunk(new, old),)))
            )
            for new, old in product((128, 512, 2048, 8192, 32768), (0, 4096))
        ),
        handoff=tuple(
            HandoffSample(num_bytes=size, ms=seen(timing.handoff_ms(size))) for size in (2**20, 2**26, 2**30)
        ),
    )


def test_a_fit_recovers_the_coefficients_of_exact_samples() -> None:
    found = fit(measure(Calibrated(TRUE)))
    assert found.model_dump() == pytest.approx(TRUE.model_dump(), rel=1e-6)


def test_a_fit_says_how_far_off_it_is() -> None:
    exact = Calibration.of(SETUP, measure(Calibrated(TRUE)))
    assert exact.accuracy.decode is not None and exact.accuracy.decode.p90 < 1e-6
    noisy = Calibration.of(SETUP, measure(Calibrated(TRUE), noise=0.1)).accuracy
    for error in (noisy.decode, noisy.prefill):
        assert error is not None and 0.01 < error.median <= error.p90 < 0.1
    assert noisy.handoff is not None and noisy.handoff.p90 > 1e-4


def test_a_calibrated_step_without_chunks_is_the_decode_line() -> None:
    timing: Timing = Calibrated(TRUE)
    line = timing.decode_line(9)
    assert timing.step_ms(9, 1234, ()) == line.base_ms + line.per_token_ms * 1234


def test_a_mixed_step_has_one_overhead() -> None:
    timing = Calibrated(TRUE)
    chunk = (Chunk(512, 100),)
    assert timing.step_ms(8, 900, chunk) == timing.step_ms(8, 900, ()) + timing.step_ms(0, 0, chunk) - 4.0


def test_no_coefficient_is_negative() -> None:
    # Falls with the batch: the nearest line that may not is flat.
    falling = tuple(DecodeSample(requests=b, context_tokens=0, step_ms=10.0 - b / 100) for b in range(1, 50))
    found = fit(measure(Calibrated(TRUE)).model_copy(update={"decode": falling}))
    assert found.decode_request_ms == 0.0
    assert found.decode_step_ms == pytest.approx(9.75, abs=0.01)


def test_what_samples_do_not_tell_apart_goes_to_the_fixed_part() -> None:
    same = tuple(DecodeSample(requests=4, context_tokens=400, step_ms=8.0) for _ in range(5))
    found = fit(measure(Calibrated(TRUE)).model_copy(update={"decode": same}))
    assert (found.decode_step_ms, found.decode_request_ms, found.decode_token_ms) == (8.0, 0.0, 0.0)


def test_errors_count_relative_to_the_time() -> None:
    # Absolute least squares would give a slope of 11 to please the large sample alone.
    slope = fit_relative(np.array([[1.0], [1.0], [100.0]]), np.array([1.0, 1.0, 1100.0]))[0]
    assert 1.0 < slope < 2.0


def test_too_few_samples_are_refused() -> None:
    samples = measure(Calibrated(TRUE))
    with pytest.raises(HeliostatError, match="2 decode samples are too few"):
        fit(samples.model_copy(update={"decode": samples.decode[:2]}))


def test_without_handoffs_they_are_free_and_have_no_accuracy() -> None:
    samples = measure(Calibrated(TRUE)).model_copy(update={"handoff": ()})
    calibration = Calibration.of(SETUP, samples)
    assert calibration.timing.handoff_ms(2**30) == 0.0
    assert calibration.accuracy.handoff is None


CORRECTIONS = Corrections(
    step_overhead_ms=0.9,
    per_request_ms=0.02,
    memory_efficiency=0.7,
    compute_efficiency=0.45,
    attention_efficiency=0.3,
    handoff_efficiency=0.5,
    handoff_latency_ms=3.0,
)


@pytest.mark.parametrize("gpus", [1, 4])
def test_corrections_are_recovered_from_samples_of_a_gpu(gpus: int) -> None:
    start = Roofline(H100, KNOWN["Qwen/Qwen3-8B"], gpus=gpus)
    truth = replace(start, corrections=CORRECTIONS)
    found = correct(measure(truth), start)
    assert found.model_dump() == pytest.approx(CORRECTIONS.model_dump(), rel=1e-6)


def test_corrections_carry_to_another_geometry_and_other_bits() -> None:
    start = Roofline(H100, KNOWN["Qwen/Qwen3-8B"])
    found = correct(measure(replace(start, corrections=CORRECTIONS), noise=0.03), start)
    other = Roofline(H100, KNOWN["Qwen/Qwen3-14B"], weight_bits=4)
    truth = measure(replace(other, corrections=CORRECTIONS))
    errors = accuracy(replace(other, corrections=found), truth)
    assert errors.decode is not None and errors.decode.p90 < 0.05
    assert errors.prefill is not None and errors.prefill.p90 < 0.05
    uncorrected = accuracy(other, truth)
    assert uncorrected.decode is not None and uncorrected.decode.median > 0.1


def test_what_was_not_measured_is_not_corrected() -> None:
    start = Roofline(H100, KNOWN["Qwen/Qwen3-8B"])
    samples = Samples(decode=measure(replace(start, corrections=CORRECTIONS)).decode[:9])
    found = correct(samples, start)
    assert found.memory_efficiency == pytest.approx(0.7)
    assert found.compute_efficiency == start.corrections.compute_efficiency
    assert found.handoff_latency_ms == start.corrections.handoff_latency_ms
    with pytest.raises(HeliostatError, match="no decode and no prefill"):
        correct(Samples(), start)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    calibration = Calibration.of(SETUP, measure(Calibrated(TRUE), noise=0.1))
    calibration.save(tmp_path / "c.json")
    assert load_calibration(tmp_path / "c.json") == calibration


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match=r"none\.json: cannot be read.*heliostat calibrate"):
        load_calibration(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("section", "key", "value", "complaint"),
    [
        ("coefficients", "decode_step_ms", -1.0, "`coefficients.decode_step_ms`.*greater"),
        ("coefficients", "decode_step_ms", "4", "`coefficients.decode_step_ms`.*valid number"),
        ("setup", "geometry", {"layers": 2}, "`setup.geometry.hidden`"),
        ("setup", "colour", "blue", "`setup.colour`"),
    ],
)
def test_a_bad_file_is_refused_with_file_and_key(
    tmp_path: Path, section: str, key: str, value: object, complaint: str
) -> None:
    path = tmp_path / "c.json"
    Calibration.of(SETUP, measure(Calibrated(TRUE))).save(path)
    content = json.loads(path.read_text())
    content[section][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(HeliostatError, match=rf"c\.json: no calibration file.*{complaint}"):
        load_calibration(path)


def test_what_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("not json")
    with pytest.raises(HeliostatError, match=r"c\.json: no calibration file.*JSON"):
        load_calibration(tmp_path / "c.json")
