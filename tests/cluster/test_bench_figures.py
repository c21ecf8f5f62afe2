"""What a benchmark says of plain records."""

import io

import pytest
from rich.console import Console

from cluster.answer_times import AnswerTimes
from cluster.bench_figures import Figures, Slo, by_model, figures
from cluster.bench_record import Failure, Record
from cluster.bench_report import Lag, Report, count_warnings, length_warnings
from cluster.bench_table import render_report
from cluster.percentiles import Percentiles
from heliostat import Usage


def answered(
    ttft_s: float = 0.1,
    decode_s: float = 0.9,
    *,
    model: str = "math",
    tokens: int = 10,
    cached: int = 0,
    by_another: int = 0,
    prompt: int = 100,
    tells: bool = True,
    late_s: float = 0.0,
) -> Record:
    """Due at 5 s; so many tokens come until `decode_s` after the first."""
    times = AnswerTimes(5.0, 5.0 + ttft_s, 5.0 + ttft_s + decode_s, pieces=4)
    usage = Usage(
        prompt_tokens=prompt, output_tokens=tokens, cached_tokens=cached, cross_model_tokens=by_another
    )
    return Record(model, 5.0 + late_s, 5.0 + ttft_s + decode_s, times, usage, tells)


def failed(kind: str = "OverloadedError", status: int = 429, message: str = "full") -> Record:
    return Record("math", 5.0, 5.2, AnswerTimes(5.0), failure=Failure(kind, status, message))


def of(*records: Record, slo: Slo | None = None, elapsed_s: float = 2.0) -> Figures:
    return figures(records, elapsed_s, slo or Slo())


def test_latencies_count_from_when_a_request_was_due_and_tpot_in_tokens() -> None:
    found = of(answered(0.2, 0.9, tokens=10, late_s=0.15))
    assert found.ttft_ms.p50 == pytest.approx(200)
    assert found.tpot_ms.p50 == pytest.approx(100), "nine tokens after the first, in four pieces"
    assert found.e2e_ms.p50 == pytest.approx(1100)


def test_rates_are_those_of_whole_answers_over_the_whole_run() -> None:
    found = of(answered(tokens=10), answered(tokens=30), failed(), elapsed_s=4.0)
    assert (found.ok, found.failed) == (2, 1)
    assert (found.requests_per_s, found.output_tokens_per_s) == (0.5, 10.0)


def test_failures_are_counted_by_class_the_most_frequent_first() -> None:
    found = of(failed(message="one"), failed("TimedOutError", 0), failed(message="two"), answered())
    assert [(each.kind, each.status, each.count, each.message) for each in found.errors] == [
        ("OverloadedError", 429, 2, "one"),
        ("TimedOutError", 0, 1, "full"),
    ]
    assert found.ttft_ms.p99 == pytest.approx(100), "of those that were answered"


def test_goodput_counts_what_keeps_both_limits() -> None:
    slo = Slo(ttft_ms=150, tpot_ms=150)
    slow_start, slow_steps = answered(0.2), answered(0.1, 2.0)
    found = of(answered(), slow_start, slow_steps, failed(), slo=slo)
    assert (found.good, found.goodput_per_s) == (1, 0.5)


def test_one_token_has_no_tpot_to_miss() -> None:
    assert Slo(ttft_ms=150, tpot_ms=1).keeps(answered(tokens=1))


def test_caches_are_not_spoken_of_where_the_server_does_not() -> None:
    assert (of(answered(tells=False)).cached_tokens, of(answered(tells=True)).cached_tokens) == (None, 0)
    plain = of(answered(tells=False, cached=32))
    assert (plain.cached_tokens, plain.cross_model_tokens) == (32, None)


def test_answers_without_a_count_are_counted_in_pieces_and_it_is_said() -> None:
    found = of(answered(tokens=0), answered(tokens=10))
    assert (found.output_tokens, found.counted) == (14, 1)
    (warning,) = count_warnings(found)
    assert "1 of 2 answers came without a token count" in warning
    assert count_warnings(of(answered())) == ()


def test_prompts_of_another_length_are_said() -> None:
    assert length_warnings(of(answered(prompt=100), answered(prompt=100)), 100) == ()
    assert "counted 90 to 110" in length_warnings(of(answered(prompt=90), answered(prompt=110)), 100)[0]
    assert length_warnings(of(answered(prompt=0)), 100) == (), "the server does not say"


@pytest.mark.parametrize(
    ("late_ms", "stall_ms", "cpu_share", "ttft_ms", "said"),
    [
        (4.0, 4.0, 0.5, 10.0, ""),  # as any machine
        (40.0, 40.0, 0.5, 1000.0, ""),  # small beside what is measured
        (40.0, 1.0, 0.5, 100.0, "sent requests 40 ms late"),
        (40.0, 30.0, 0.5, 100.0, "sent requests 40 ms and read answers 30 ms late"),
        (1.0, 1.0, 0.95, 100.0, "took 95% of a core"),
    ],
)
def test_this_program_says_when_it_is_the_slow_one(
    late_ms: float, stall_ms: float, cpu_share: float, ttft_ms: float, said: str
) -> None:
    lag = Lag(late_ms=Percentiles(p99=late_ms), stall_p99_ms=stall_ms, cpu_share=cpu_share)
    assert said in "".join(lag.warnings(ttft_ms))
    assert bool(said) == bool(lag.warnings(ttft_ms))


def rendered(records: list[Record], **changes: object) -> str:
    slo = Slo(ttft_ms=150)
    total, models = figures(records, 2.0, slo), ("math", "code")
    report = Report(
        version="1",
        url="http://there",
        models=models,
        load="8 at a time",
        asked="100 tokens in",
        seed=7,
        slo=slo,
        elapsed_s=2.0,
        interrupted=False,
        unfinished=0,
        warmup_ok=0,
        warmup_failed=0,
        total=total,
        by_model=by_model(models, records, 2.0, slo),
        lag=Lag(late_ms=Percentiles(), stall_p99_ms=0.0, cpu_share=0.1),
        warnings=("beware",),
    ).model_copy(update=changes)
    out = io.StringIO()
    render_report(report, Console(file=out, width=100))
    return out.getvalue()


def test_a_report_for_people() -> None:
    records = [answered(cached=50, by_another=20), answered(0.2, model="code"), failed()]
    text = rendered(records)
    for part in (
        "TTFT          150    190    195    199",
        "2 answered, 1 failed in 2.0 s",
        "1.00 requests/s, 10.0 output tokens/s, 10.0 output tokens a request",
        "200 prompt tokens, 25.0% from a cache, 10.0% brought there by another model",
        "goodput 0.50 requests/s: 33.3% kept TTFT 150 ms",
        "failed: 1 OverloadedError (429): full",
        "warning: beware",
    ):
        assert part in text, text


def test_a_run_without_an_answer_is_a_report_too() -> None:
    text = rendered([], interrupted=True, unfinished=8)
    assert "0 answered, 0 failed in 2.0 s; interrupted, 8 had begun and are not counted" in text
