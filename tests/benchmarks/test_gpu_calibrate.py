"""Facts about the GPU calibration, on a CPU: it times a real forward, and writes files that load."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_calibrate import TINY, main, missing
from benchmarks.gpu_clock import Repetitions, median_ms
from benchmarks.gpu_decoder import Decoder
from benchmarks.gpu_figures import GOAL_PERCENT, Measured, figures
from benchmarks.gpu_linear import ZERO_POINT, Int4Linear
from benchmarks.gpu_run import known_gpu
from benchmarks.gpu_sweep import TINY as TINY_PLAN
from benchmarks.gpu_sweep import TINY_GEOMETRY, WHOLE, Copies, Prompt, decode_samples, prefill_samples
from benchmarks.report import Report
from simulator.timing import (
    H200,
    KNOWN,
    Chunk,
    Corrections,
    DecodeSample,
    HandoffSample,
    PrefillSample,
    Roofline,
    Samples,
    load_calibration,
)

CPU = torch.device("cpu")
QWEN3_8B = KNOWN["Qwen/Qwen3-8B"]
ONCE = Repetitions(1, least=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products on many threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def decoder(kv_tokens: int = 64) -> Decoder:
    return Decoder(TINY_GEOMETRY, CPU, kv_tokens, dtype=torch.float32)


def some_tokens(requests: int, number: int) -> torch.Tensor:
    return torch.randint(TINY_GEOMETRY.vocab, (requests, number))


@pytest.mark.parametrize("requests", [1, 3])
def test_a_decode_step_behind_a_prefill_gives_what_the_longer_prefill_gives(requests: int) -> None:
    model, tokens = decoder(), some_tokens(requests, 9)
    kv = model.kv(requests, 9)
    whole = model.hidden(tokens, kv, 0).view(requests, 9, -1)[:, -1]
    kv.fill_(7.0)
    model.hidden(tokens[:, :-1], kv, 0)
    step = model.hidden(tokens[:, -1:], kv, 8)
    torch.testing.assert_close(model.logits(step), model.logits(whole))


def test_a_prompt_in_two_chunks_gives_what_it_gives_at_once() -> None:
    model, tokens = decoder(), some_tokens(1, 12)
    kv = model.kv(1, 12)
    whole = model.hidden(tokens, kv, 0)
    kv.fill_(7.0)
    chunks = [model.hidden(tokens[:, :5], kv, 0), model.hidden(tokens[:, 5:], kv, 5)]
    torch.testing.assert_close(torch.cat(chunks), whole)


def test_what_is_decoded_depends_on_the_whole_context() -> None:
    model, token = decoder(), some_tokens(1, 1)
    kv = model.kv(1, 16)
    before = model.hidden(token, kv, 15)
    kv[0, 1, 0, 0] += 1.0
    assert not torch.allclose(before, model.hidden(token, kv, 15))


def test_an_int4_product_is_that_of_its_weights() -> None:
    layer = Int4Linear(128, 64, CPU)
    # The identity reads the weights back, one row of the input at a time.
    weights = layer(torch.eye(128, dtype=torch.bfloat16)).float().T
    levels = weights / layer.scales[0, 0, 0].float()
    assert weights.shape == (64, 128)
    torch.testing.assert_close(levels, levels.round(), atol=0.05, rtol=0.0)
    assert levels.min().round() == -ZERO_POINT and levels.max().round() == 15 - ZERO_POINT
    rows = torch.randn((5, 128)).bfloat16()
    torch.testing.assert_close(layer(rows).float(), rows.float() @ weights.T, atol=0.03, rtol=0.03)


def test_the_tiny_run_writes_two_calibrations_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "cpu.json"
    assert main(["--device", "cpu", "--geometry", TINY, "--out", str(out)]) == 0
    for path, bits, contexts, prompts in (
        (out, 16, TINY_PLAN.contexts, TINY_PLAN.prompts),
        (out.with_name("cpu-int4.json"), 4, TINY_PLAN.int4_contexts, TINY_PLAN.int4_prompts),
    ):
        file = load_calibration(path)
        assert (file.setup.engine, file.setup.weight_bits, file.setup.gpu) == ("torch", bits, None)
        assert file.setup.geometry == TINY_GEOMETRY
        assert {(each.requests, each.context_tokens) for each in file.samples.decode} == {
            (batch, batch * context) for batch in TINY_PLAN.batches for context in contexts
        }
        assert [(each.new_tokens, each.cached_tokens) for each in file.samples.prefill] == list(prompts)
    assert len(load_calibration(out).samples.handoff) == len(TINY_PLAN.copies)
    report = Report.model_validate_json((tmp_path / "results" / "gpu_calibrate.json").read_text())
    assert {"decode_memory_rate", "int4_batch_1_speedup", "copy_to_device_rate"} <= report.metrics.keys()
    assert "int4_batch_1_speedup" in capsys.readouterr().out


def test_fewer_layers_are_said_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    assert main(["--device", "cpu", "--geometry", TINY, "--layers", "1", "--out", str(out)]) == 0
    setup = load_calibration(out).setup
    assert setup.geometry == replace(TINY_GEOMETRY, layers=1)
    assert "1 of 2 layers" in setup.model


def test_the_whole_plan_is_the_issues() -> None:
    assert (min(WHOLE.batches), max(WHOLE.batches)) == (1, 256)
    lengths = [prompt.new for prompt in WHOLE.prompts if not prompt.cached]
    assert (lengths[0], lengths[-1]) == (128, 32768)


def test_a_step_whose_kv_does_not_fit_is_left_out_and_said() -> None:
    notes: list[str] = []
    samples = decode_samples(decoder(kv_tokens=32), (1, 2), (16, 32), ONCE, notes.append)
    assert [(each.requests, each.context_tokens) for each in samples] == [(1, 16), (1, 32), (2, 32)]
    assert any("1 of 4 decode steps left out" in note for note in notes)


def test_one_measurement_that_fails_does_not_lose_the_others() -> None:
    notes: list[str] = []
    samples = prefill_samples(decoder(kv_tokens=32), (Prompt(8), Prompt(64), Prompt(16)), ONCE, notes.append)
    assert [each.new_tokens for each in samples] == [8, 16]
    assert any("new=64" in note and "left out" in note for note in notes)


def test_work_is_repeated_as_its_time_allows() -> None:
    repetitions = Repetitions(most=20, least=3, budget_s=2.0)
    assert [repetitions.of(ms) for ms in (1.0, 200.0, 60_000.0)] == [20, 10, 3]
    runs: list[None] = []
    assert median_ms(lambda: runs.append(None), CPU, Repetitions(5)) > 0.0
    assert len(runs) == 2 + 1 + 5


def measured_like(roofline: Roofline) -> Measured:
    """A GPU that is just as this roofline says."""
    int4 = replace(roofline, weight_bits=4)

    def decode(model: Roofline) -> tuple[DecodeSample, ...]:
        return tuple(
            DecodeSample(
                requests=batch, context_tokens=batch * each, step_ms=model.step_ms(batch, batch * each, ())
            )
            for batch in (1, 4, 16, 64, 256)
            for each in (512, 2048)
        )

    prefill = tuple(
        PrefillSample(new_tokens=new, ms=roofline.step_ms(0, 0, (Chunk(new, 0),)))
        for new in (128, 512, 2048, 8192, 32768)
    )
    copy = (HandoffSample(num_bytes=2**30, ms=20.0),)
    return Measured(
        roofline.geometry,
        Samples(decode=decode(roofline), prefill=prefill),
        Samples(decode=decode(int4)),
        Copies(copy, copy, copy),
    )


def test_corrections_from_16_bit_steps_foretell_int4_where_fewer_bytes_are_all_there_is() -> None:
    corrections = Corrections(
        step_overhead_ms=0.4, memory_efficiency=0.7, compute_efficiency=0.75, attention_efficiency=0.4
    )
    truth = Roofline(H200, QWEN3_8B, corrections=corrections)
    metrics = figures(measured_like(truth), Roofline(H200, QWEN3_8B))
    for key in ("decode_error_median", "prefill_error_median", "int4_decode_error_median"):
        error = metrics[key]
        assert error.value < 1.0 < (error.peer or 0.0)
    assert metrics["decode_error_median"].goal == GOAL_PERCENT
    assert metrics["fitted_memory_efficiency"].value == pytest.approx(0.7, rel=0.01)
    assert metrics["decode_kv_rate"].value == pytest.approx(0.7 * H200.memory_gb_per_s, rel=0.01)
    assert 2.0 < metrics["int4_batch_1_speedup"].value < 4.0
    assert metrics["copy_within_device_rate"].value == pytest.approx(2 * 2**30 / 20.0 / 1e6)


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("cpu", None),
    ],
)
def test_only_the_board_of_the_datasheet_gets_it(name: str, gpu: str | None) -> None:
    assert known_gpu(name) == gpu


def test_a_missing_package_is_named_as_pip_calls_it() -> None:
    assert missing() == []
    assert missing(("json", "heliostat_has_no_such_module")) == ["heliostat_has_no_such_module"]


def test_without_a_gpu_the_default_device_is_refused_with_a_way_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 1
    assert "--device cpu --geometry tiny" in capsys.readouterr().err


def test_a_tiny_run_needs_a_place_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--device", "cpu", "--geometry", TINY])
    assert "--out" in capsys.readouterr().err


def test_a_real_model_is_refused_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu"]) == 1
    assert "--geometry tiny" in capsys.readouterr().err
