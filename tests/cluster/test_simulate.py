"""`heliostat simulate`: its flags, its errors, and small clusters from spec to table, JSON and pictures."""

import json
from pathlib import Path

import pytest

from cluster.cli import main, parser
from cluster.simulate_report import Report

SPEC = """
family: {base: Qwen/Qwen3-8B, max_model_len: 32768}
prefill:
  math: {weights: acme/math-prefill, gpus: 1}
  code: {weights: acme/code-prefill, gpus: 1}
decode:
  shared: {weights: Qwen/Qwen3-8B, replicas: 2, gpus: 1}
models:
  math: {prefill: math, decode: shared}
  code: {prefill: code, decode: shared}
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(SPEC)
    return str(path)


def flags(spec: str, *more: str) -> list[str]:
    """A run of a few dozen requests."""
    return ["simulate", spec, "--duration", "10", "--rate", "2", *more]


def test_topologies_stand_side_by_side(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags(spec, "--compare", "dedicated", "qsun")) == 0
    printed = capsys.readouterr()
    for word in ("spec", "dedicated", "qsun", "TTFT p95 (ms)", "goodput", "x)", "decode.shared", "math"):
        assert word in printed.out
    assert printed.err == ""  # no progress bar where stderr is no terminal


def test_json_has_every_round_of_every_rate(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", spec, "--duration", "5", "--rate", "2", "4", "--rounds", "2", "--json"]) == 0
    report = Report.model_validate_json(capsys.readouterr().out)
    assert report.loads == (2.0, 4.0)
    assert [[summary.seed for summary in cell.rounds] for cell in report.cells] == [[0, 1], [0, 1]]
    assert report.cells[0].rounds[0].requests > 0


def test_the_same_seed_gives_the_same_figures(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        assert main(flags(spec, "--seed", "7", "--json")) == 0
        report = Report.model_validate_json(capsys.readouterr().out)
        printed.append(report.cells[0].rounds[0].model_copy(update={"wall_s": 0.0}))
    assert printed[0] == printed[1]


def test_the_fewest_gpus_are_found(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags(spec, "--find-min-gpus", "--slo", "ttft=5s,tpot=100ms", "--json")) == 0
    search = Report.model_validate_json(capsys.readouterr().out).searches[0]
    assert search.gpus == 3
    assert search.replicas == {"prefill.math": 1, "prefill.code": 1, "decode.shared": 1}


def test_an_slo_that_nothing_keeps_is_said(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    slo = ("--slo", "ttft=1ms,tpot=1ms", "--max-gpus", "4")
    assert main(flags(spec, "--find-min-gpus", *slo)) == 0
    assert "nothing up to 4 GPUs suffices" in capsys.readouterr().out


def test_plots_are_written(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags(spec, "--compare", "sun", "--plots", str(tmp_path / "plots"))) == 0
    written = {path.name for path in (tmp_path / "plots").iterdir()}
    assert written == {"latency.svg", "goodput.svg", "timeline-spec.svg", "timeline-sun.svg"}


def test_a_trace_says_its_kind_by_its_suffix(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 500 * n, "input_length": 600, "output_length": 20, "hash_ids": [0, n]}
        for n in range(40)
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["simulate", spec, "--trace", str(trace), "--speed", "1", "2", "--json"]) == 0
    report = Report.model_validate_json(capsys.readouterr().out)
    assert report.load.startswith("speed")
    assert report.loads == (1.0, 2.0)
    assert report.cells[0].rounds[0].prefix_hit_ratio > 0.5


def test_flags_go_before_the_workload_file(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = tmp_path / "workload.yaml"
    workload.write_text("kind: bursts\nrate_per_s: 1\nduration_s: 500\nburst_s: 2\nperiod_s: 5\n")
    assert main(flags(spec, "--workload-file", str(workload), "--json")) == 0
    summary = Report.model_validate_json(capsys.readouterr().out).cells[0].rounds[0]
    assert summary.duration_s == 10
    assert "bursts" in summary.workload


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--as", "sunn"), "there is no topology"),
        (("--gpu", "h10"), "did you mean `h100`?"),
        (("--slo", "ttft=2,tpot=25ms"), "ttft has no unit"),
        (("--policy", "decode=leastload"), "did you mean `least_load`?"),
        (("--policy", "decode=time_to_kv"), "no decode policy `time_to_kv`"),
        (("--policy", "routing=random"), "prefill=NAME,decode=NAME"),
        (("--workload", "poison"), "kind"),
        (("--workload", "mooncake"), "use --speed"),
        (("--speed", "2"), "use --rate"),
        (("--trace", "trace.gz"), "add --workload mooncake or azure"),
        (("--calibration", "nowhere.json"), "nowhere.json: cannot be read"),
        (("--workload-file", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("--attainment", "1.5", "--find-min-gpus"), "cannot be reached"),
    ],
)
def test_what_is_wrong_is_one_line(
    spec: str, wrong: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(spec, *wrong)) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("heliostat: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "wrong", [("--rate", "0"), ("--rounds", "0"), ("--link", "rope"), ("--rate", "fast")]
)
def test_what_is_no_number_is_a_usage_error(wrong: tuple[str, ...], spec: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", spec, *wrong])
    assert ended.value.code == 2


def test_the_help_names_every_topology(capsys: pytest.CaptureFixture[str]) -> None:
    from simulator.topology import TOPOLOGIES

    with pytest.raises(SystemExit):
        parser().parse_args(["simulate", "--help"])
    printed = capsys.readouterr().out
    assert not [topology for topology in TOPOLOGIES if topology not in printed]


def test_the_help_names_every_gpu_and_workload() -> None:
    from typing import get_args

    from simulator.timing import GPUS
    from simulator.workload.config import Kind

    simulate = parser().parse_args(["simulate", "x"])
    assert simulate.gpu in GPUS
    help_text = Path(__file__).parents[2].joinpath("cluster", "simulate_args.py").read_text()
    assert not [name for name in (*GPUS, *get_args(Kind)) if name not in help_text]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--autoscale"], "no pool can scale"),
        (["--start", "5"], "needs --autoscale"),
        (["--autoscale", "--find-min-gpus"], "leave out --autoscale"),
    ],
)
def test_autoscale_where_it_does_not_fit_is_refused(
    spec: str, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(flags(spec, *more)) != 0
    assert message in capsys.readouterr().err


def test_autoscale_scales_a_spec_that_has_room(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "examples" / "planning" / "autoscaling.yaml"
    assert main(flags(str(example), "--autoscale", "--start", "5", "--json")) == 0
    report = Report.model_validate_json(capsys.readouterr().out)
    pools = {pool.name: pool for pool in report.cells[0].rounds[0].pools}
    assert pools["shared"].replicas < 8, "not its max"
    assert 0 < pools["tools"].replicas_mean < 1, "it began at 0 and was called"
