from dataclasses import replace

import pytest

from benchmarks.policies import CHOICES, OURS, fair_shares, jain, metrics_of, sample
from benchmarks.policy_workloads import MODELS, NOISY, WORKLOADS, Workload, poisson

SLOW = next(workload for workload in WORKLOADS if workload.name == "slow")


def test_fair_shares_give_no_more_than_was_asked_for() -> None:
    assert fair_shares({"a": 10.0, "b": 100.0, "c": 100.0}, 90.0) == {"a": 10.0, "b": 40.0, "c": 40.0}
    assert fair_shares({"a": 10.0, "b": 20.0}, 30.0) == {"a": 10.0, "b": 20.0}


def test_jain_is_one_when_all_are_equal_and_an_nth_when_one_has_everything() -> None:
    assert jain([0.5, 0.5, 0.5]) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_arrivals_are_drawn_from_the_seed(workload: Workload) -> None:
    few = replace(workload, requests=50)
    arrivals = few.arrivals(1)
    assert arrivals == few.arrivals(1)
    assert arrivals != few.arrivals(2)
    assert [arrival.at_s for arrival in arrivals] == sorted(arrival.at_s for arrival in arrivals)


def test_turns_of_a_conversation_share_their_beginning() -> None:
    turns: dict[str, tuple[int, ...]] = {}
    continued = 0
    for arrival in replace(SLOW, requests=100).arrivals(0):
        before = turns.get(arrival.session, ())
        assert arrival.token_ids[: len(before)] == before
        continued += bool(before)
        turns[arrival.session] = arrival.token_ids
    assert continued > 20


def test_a_run_goes_the_same_way_twice_and_ours_finds_the_slow_replica() -> None:
    few = replace(SLOW, requests=80)
    ours = sample(few, CHOICES[OURS], seeds=[0])
    assert ours == sample(few, CHOICES[OURS], seeds=[0])
    others = sample(few, CHOICES["random"], seeds=[0])
    assert ours.ttft_p95 < others.ttft_p95
    assert ours.tpot_p95 < others.tpot_p95
    assert ours.error_rate == 0.0


def test_admission_protects_quiet_models_from_a_noisy_one() -> None:
    crowd = Workload("noisy", "", 300, poisson(150.0), NOISY)
    ours = sample(crowd, CHOICES[OURS], seeds=[0])
    open_door = sample(crowd, CHOICES["no_admission"], seeds=[0])
    assert ours.model_ttft_p95 < open_door.model_ttft_p95


@pytest.mark.parametrize("kv_events", [False, True])
def test_several_routers_serve_everything(kv_events: bool) -> None:
    choice = CHOICES[OURS]._replace(kv_events=kv_events)
    assert sample(replace(SLOW, requests=60), choice, routers=4, seeds=[0]).error_rate == 0.0


def test_ours_is_measured_against_the_best_of_the_others() -> None:
    few = replace(SLOW, requests=10)
    samples = {name: sample(few, choice, seeds=[0]) for name, choice in CHOICES.items()}
    metrics = metrics_of(few, samples)
    best = min(row.ttft_p95 for name, row in samples.items() if name not in (OURS, "no_admission"))
    assert metrics["slow_ttft_p95"].peer == best
    assert len(MODELS) == len(NOISY)
