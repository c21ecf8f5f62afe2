"""What a benchmark says of plain records."""

import io

import pytest
from rich.console import Console

from cluster.answer_times import AnswerTimes
from cluster.bench_figures import Figures, Slo, by_model, figures
from cluster.bench_flags import Flags
from cluster.bench_record import Failure, Record
from cluster.bench_report import Lag, Report, count_warnings, length_warnings, timeout_warnings
from cluster.bench_table import render_report
from cluster.percentiles import Percentiles
from heliostat import Piece, Usage


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
    closes_s: float = 0.0,
    gaps_ms: tuple[float, ...] = (),
) -> Record:
    """Due at 5 s; so many tokens come until `decode_s` after the first. The connection closes later."""
    times = AnswerTimes(5.0, 5.0 + ttft_s, 5.0 + ttft_s + decode_s, pieces=4, gaps_ms=list(gaps_ms))
    usage = Usage(
        prompt_tokens=prompt, output_tokens=tokens, cached_tokens=cached, cross_model_tokens=by_another
    )
    return Record(model, 5.0 + late_s, 5.0 + ttft_s + decode_s + closes_s, times, usage, tells)


def failed(kind: str = "OverloadedError", status: int = 429, message: str = "full") -> Record:
    return Record("math", 5.0, 5.2, AnswerTimes(5.0), failure=Failure(kind, status, message))


def of(*records: Record, slo: Slo | None = None, elapsed_s: float = 2.0) -> Figures:
    return figures(records, elapsed_s, slo or Slo())


def test_latencies_count_from_when_a_request_was_due_and_tpot_in_tokens() -> None:
    found = of(answered(0.2, 0.9, tokens=10, late_s=0.15))
    assert found.ttft_ms.p50 == pytest.approx(200)
    assert found.tpot_ms.p50 == pytest.approx(100), "nine tokens after the first, in four pieces"
    assert found.e2e_ms.p50 == pytest.approx(1100)


def test_end_to_end_ends_at_the_last_token_and_not_with_the_connection() -> None:
    assert of(answered(0.1, 0.9, closes_s=5.0)).e2e_ms.p50 == pytest.approx(1000)


def test_itl_is_of_all_gaps_of_all_answers() -> None:
    itl = of(answered(gaps_ms=(10, 20)), answered(gaps_ms=(60,)), failed()).itl_ms
    assert (itl.min, itl.p50, itl.mean, itl.max) == (10, 20, 30, 60)


def test_gaps_are_between_pieces_that_say_something() -> None:
    times = AnswerTimes(0.0)
    for piece, now_s in (
        (Piece(finish_reason=""), 1.0),
        (Piece(text="a"), 2.0),
        (Piece(reasoning="b"), 2.5),
        (Piece(finish_reason=""), 3.0),
        (Piece(text="c"), 4.0),
        (Piece(finish_reason="stop"), 9.0),
    ):
        times.note(piece, now_s)
    assert times.gaps_ms == [500, 1500]


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


def test_a_limit_end_to_end() -> None:
    assert Slo(e2e_ms=1100).keeps(answered(0.1, 0.9))
    assert not Slo(e2e_ms=900).keeps(answered(0.1, 0.9))


def test_what_has_no_first_token_keeps_no_limit() -> None:
    assert not Slo(ttft_ms=150).keeps(Record("math", 5.0, 5.2, AnswerTimes(5.0)))


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


def test_a_tail_that_a_timeout_has_cut_off_is_said() -> None:
    assert timeout_warnings(of(answered(), failed()), 60.0) == ()
    (warning,) = timeout_warnings(
        of(answered(), failed("TimedOutError", 0), failed("TimedOutError", 0)), 60.0
    )
    assert warning.startswith("2 requests got nothing for 60 s (--timeout)")


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


FLAGS = Flags(
    api="chat",
    requests=3,
    duration_s=None,
    rate_per_s=None,
    concurrency=8,
    streams=8,
    warmup=0,
    prompt_tokens=100,
    shared_prefix_tokens=0,
    requests_per_session=1,
    dataset=None,
    dataset_prompts=None,
    output_tokens=10,
    exact_length=True,
    temperature=0.0,
    extra_body={},
    zipf=None,
    timeout_s=60.0,
)


def rendered(records: list[Record], **changes: object) -> str:
    slo = Slo(ttft_ms=150)
    total, models = figures(records, 2.0, slo), ("math", "code")
    report = Report(
        version="1",
        url="http://there",
        models=models,
        load="8 at a time",
        asked="100 tokens in",
        flags=FLAGS,
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
        "ms           mean    min    p50    p90    p95    p99    max",
        "TTFT          150    100    150    190    195    199    200",
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
