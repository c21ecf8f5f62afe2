"""A summary's figures, on runs small enough to count by hand."""

import json

import pytest

from heliostat.errors import HeliostatError
from heliostat.wire import Role
from simulator.outcome import Outcome, PoolOutcome, Requests
from simulator.slo import Slo, parse_slo
from simulator.summary import Summary, summarize

SLO = Slo(ttft_ms=1000, tpot_ms=100)


def an_outcome(gpus_per_replica: int = 1, duration_s: float = 100.0) -> Outcome:
    """A run without requests, on a prefill pool of one replica and a decode pool of two."""
    prefill = PoolOutcome("math", Role.PREFILL, 1, gpus_per_replica)
    decode = PoolOutcome("shared", Role.DECODE, 2, gpus_per_replica)
    return Outcome(
        topology="sun",
        workload="by hand",
        models=("math", "code"),
        seed=0,
        duration_s=duration_s,
        elapsed_s=200.0,
        wall_s=0.5,
        requests=Requests(),
        pools={"prefill.math": prefill, "decode.shared": decode},
        times_s=[],
    )


def add(
    outcome: Outcome,
    arrived_s: float,
    first_s: float,
    end_s: float,
    *,
    output: int = 11,
    session: int | None = None,
    model: int = 0,
    prompt: int = 100,
    cached: int = 0,
    refused: bool = False,
) -> None:
    requests = outcome.requests
    requests.session.append(len(requests) if session is None else session)
    requests.model.append(model)
    requests.arrived_s.append(arrived_s)
    requests.first_s.append(first_s)
    requests.end_s.append(end_s)
    requests.prompt_tokens.append(prompt)
    requests.cached_tokens.append(cached)
    requests.output_tokens.append(0 if refused else output)
    requests.refused.append(refused)


def summary_of(outcome: Outcome) -> Summary:
    return summarize(outcome, SLO)


def test_percentiles_are_interpolated_and_in_ms() -> None:
    outcome = an_outcome()
    for number in range(101):  # TTFT 0 to 1 s in steps of 10 ms
        add(outcome, 20.0, 20.0 + number / 100, 30.0)
    ttft = summary_of(outcome).ttft_ms
    assert (ttft.p50, ttft.p95, ttft.p99) == pytest.approx((500, 950, 990))


def test_tpot_is_per_token_after_the_first() -> None:
    outcome = an_outcome()
    add(outcome, 20.0, 21.0, 22.0, output=11)
    add(outcome, 20.0, 29.0, 29.0, output=1)  # one token: no TPOT
    assert summary_of(outcome).tpot_ms.p99 == pytest.approx(100)


def test_what_arrives_in_the_warm_up_has_no_latency() -> None:
    outcome = an_outcome()
    add(outcome, 9.9, 90.0, 99.0)
    add(outcome, 10.0, 10.5, 11.0)
    summary = summary_of(outcome)
    assert summary.requests == 1
    assert summary.ttft_ms.p99 == pytest.approx(500)
    assert summary.end_to_end_ms.p99 == pytest.approx(1000)


def test_tokens_after_the_last_arrival_are_no_throughput() -> None:
    outcome = an_outcome()  # the window is 10 s to 100 s
    add(outcome, 20.0, 50.0, 150.0, output=900)  # half of it inside
    add(outcome, 20.0, 100.5, 150.0, output=900)
    add(outcome, 0.0, 0.0, 20.0, output=900)  # arrived in the warm-up, half of it inside
    add(outcome, 20.0, 30.0, 30.0, output=90)  # all at once
    summary = summary_of(outcome)
    assert summary.output_tokens_per_s == pytest.approx((450 + 450 + 90) / 90)
    assert summary.output_tokens_per_s_per_gpu == pytest.approx((450 + 450 + 90) / 90 / 3)


def test_goodput_needs_both_limits_and_an_answer() -> None:
    outcome = an_outcome()
    add(outcome, 20.0, 21.0, 22.0)  # TTFT and TPOT exactly at the limit
    add(outcome, 20.0, 21.1, 21.5)  # TTFT missed
    add(outcome, 20.0, 20.5, 21.6)  # TPOT missed
    add(outcome, 20.0, 20.0, 20.0, refused=True)
    summary = summary_of(outcome)
    assert summary.good_share == pytest.approx(0.25)
    assert summary.goodput_per_s == pytest.approx(1 / 90)
    assert summary.refused_share == pytest.approx(0.25)


def test_a_request_that_was_cut_off_is_not_good() -> None:
    outcome = an_outcome()
    outcome.unfinished = 1
    add(outcome, 20.0, 20.1, 200.0, output=0)
    summary = summary_of(outcome)
    assert (summary.good_share, summary.refused_share, summary.unfinished) == (0.0, 0.0, 1)
    assert summary.models[0].tpot_missed_share == 1.0


def test_requests_after_the_last_session_began_are_no_goodput_per_second() -> None:
    outcome = an_outcome()
    add(outcome, 20.0, 20.5, 21.0, session=1)
    add(outcome, 120.0, 120.5, 121.0, session=1)
    summary = summary_of(outcome)
    assert summary.goodput_per_s == pytest.approx(1 / 90)
    assert summary.good_share == 1.0


def test_refused_requests_do_not_make_latencies_short() -> None:
    outcome = an_outcome()
    add(outcome, 20.0, 20.4, 21.0)
    for _ in range(100):
        add(outcome, 20.0, 20.0, 20.0, refused=True)
    assert summary_of(outcome).ttft_ms.p50 == pytest.approx(400)


def test_a_session_lasts_from_its_first_arrival_to_its_last_answer() -> None:
    outcome = an_outcome()
    add(outcome, 50.0, 51.0, 52.0, session=7)
    add(outcome, 20.0, 21.0, 22.0, session=7)
    add(outcome, 5.0, 6.0, 99.0, session=8)  # began in the warm-up
    add(outcome, 60.0, 60.0, 60.0, session=9, refused=True)
    assert summary_of(outcome).session_ms.p95 == pytest.approx(32_000)


def test_prefix_hits_are_counted_in_tokens() -> None:
    outcome = an_outcome()
    add(outcome, 20.0, 21.0, 22.0, prompt=300, cached=290)
    add(outcome, 20.0, 21.0, 22.0, prompt=100, cached=0)
    assert summary_of(outcome).prefix_hit_ratio == pytest.approx(0.725)


def test_pools_in_use() -> None:
    outcome = an_outcome(gpus_per_replica=2)
    outcome.times_s = [0.0, 50.0, 75.0, 150.0]  # the first and the last lie outside
    decode = outcome.pools["decode.shared"]
    decode.busy_s, decode.steps, decode.step_requests, decode.preemptions = 100.0, 10, 45, 3
    decode.running, decode.waiting = [0, 2, 4, 100], [0, 1, 1, 100]
    decode.kv_use = [0.0, 0.5, 0.7, 1.0]
    decode.sizes, decode.held_s = [9, 1, 2, 9], 400.0
    prefill = outcome.pools["prefill.math"]
    prefill.running = prefill.waiting = prefill.kv_use = [0.0] * 4
    prefill.sizes = [1] * 4
    summary = summary_of(outcome)
    pool = summary.pools[1]
    assert summary.gpus == 6
    assert (pool.name, pool.gpus, pool.preemptions) == ("shared", 4, 3)
    assert pool.utilization == pytest.approx(100 / 400)
    assert pool.mean_batch == pytest.approx(4.5)
    assert (pool.running_mean, pool.waiting_mean, pool.replicas_mean) == (3.0, 1.0, 1.5)
    assert (pool.kv_use_mean, pool.kv_use_peak) == (pytest.approx(0.6), 0.7)
    assert summary.pools[0].mean_batch == 0.0


def test_each_model_has_its_own_figures() -> None:
    outcome = an_outcome()
    add(outcome, 20.0, 20.5, 21.0, model=0)
    add(outcome, 20.0, 23.0, 24.0, model=1)
    add(outcome, 20.0, 20.0, 20.0, model=1, refused=True)
    math, code = summary_of(outcome).models
    assert (math.name, math.requests, math.good_share) == ("math", 1, 1.0)
    assert (code.requests, code.refused) == (2, 1)
    assert code.ttft_p95_ms == pytest.approx(3000)
    assert code.tpot_p50_ms == pytest.approx(100)
    assert (code.ttft_missed_share, code.tpot_missed_share) == (1.0, 0.0)


def test_a_run_without_requests_or_gpus_has_a_summary() -> None:
    summary = summary_of(an_outcome(gpus_per_replica=0))
    assert summary.requests == 0
    assert summary.ttft_ms.p95 is None
    assert summary.output_tokens_per_s_per_gpu is None
    assert json.loads(summary.model_dump_json())["good_share"] == 0.0


def test_a_summary_survives_json() -> None:
    outcome = an_outcome()
    add(outcome, 20.0, 21.0, 22.0)
    summary = summary_of(outcome)
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_warm_up_must_leave_something(share: float) -> None:
    with pytest.raises(HeliostatError, match="give a share"):
        summarize(an_outcome(), SLO, warmup_share=share)


@pytest.mark.parametrize("text", ["ttft=2s,tpot=25ms", " TPOT = 0.025s , ttft=2000 ms"])
def test_an_slo_as_people_write_it(text: str) -> None:
    assert parse_slo(text) == Slo(ttft_ms=2000, tpot_ms=25)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ttft=2s,tpt=25ms", "did you mean `tpot`?"),
        ("ttft=2,tpot=25ms", "ttft has no unit; use s or ms"),
        ("ttft=2m,tpot=25ms", "has the unit `m`"),
        ("ttft=2s", "tpot is missing"),
        ("ttft=2s,ttft=3s,tpot=1ms", "twice"),
        ("ttft=fast,tpot=25ms", "is not a time"),
        ("ttft=0s,tpot=25ms", "zero"),
        ("2s,25ms", "is not KEY=TIME"),
        ("", "is not KEY=TIME"),
    ],
)
def test_a_wrong_slo_says_how_to_write_it(text: str, said: str) -> None:
    with pytest.raises(HeliostatError, match=said.replace("?", r"\?")):
        parse_slo(text)
