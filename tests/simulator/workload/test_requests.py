from collections import Counter
from functools import partial
from itertools import pairwise

import pytest

from simulator.workload.arrivals import poisson
from simulator.workload.base import Workload
from simulator.workload.lengths import Fixed, Lengths, Uniform
from simulator.workload.requests import Independent

MODELS = ("a", "b", "c")


def workload(
    zipf: float = 1.0,
    prompt: Lengths | None = None,
    system_tokens: int = 0,
    system_per_model: bool = False,
    rate: float = 10.0,
) -> Workload:
    return Independent(
        models=MODELS,
        arrivals=partial(poisson, rate_per_s=rate),
        pattern="Poisson",
        duration_s=60.0,
        prompt=prompt or Uniform(low=1, high=100),
        output=Uniform(low=1, high=50),
        zipf=zipf,
        system_tokens=system_tokens,
        system_per_model=system_per_model,
    )


def test_a_seed_gives_the_same_sessions_and_another_seed_others() -> None:
    sessions = list(workload().sessions(1))
    assert len(sessions) > 400
    assert sessions == list(workload().sessions(1))
    assert sessions != list(workload().sessions(2))


def test_sessions_are_single_calls_in_order_within_the_duration() -> None:
    sessions = list(workload().sessions(1))
    assert all(one.at_s <= two.at_s for one, two in pairwise(sessions))
    assert 59.0 < sessions[-1].at_s <= 60.0
    assert {(session.name, len(session.calls)) for session in sessions} == {("", 1)}


def test_prompts_have_a_name_for_every_block_and_no_two_share_one() -> None:
    calls = [session.calls[0] for session in workload().sessions(1)]
    assert {len(call.blocks) - -(-call.prompt_tokens // 16) for call in calls} == {0}
    assert max(Counter(name for call in calls for name in call.blocks).values()) == 1


def test_popularity_changes_neither_arrivals_nor_lengths() -> None:
    even, skewed = list(workload(zipf=0.0).sessions(1)), list(workload(zipf=2.0).sessions(1))
    assert [s.at_s for s in even] == [s.at_s for s in skewed]
    assert [s.calls[0].blocks for s in even] == [s.calls[0].blocks for s in skewed]
    first = [sum(s.calls[0].model == "a" for s in sessions) / len(sessions) for sessions in (even, skewed)]
    assert first == pytest.approx([0.333, 0.735], abs=0.06)


def test_full_blocks_of_one_system_prompt_are_equal_for_all_models() -> None:
    calls = [s.calls[0] for s in workload(system_tokens=40, prompt=Fixed(tokens=30)).sessions(1)]
    assert {call.prompt_tokens for call in calls} == {70}
    assert {call.blocks[:2] for call in calls} == {calls[0].blocks[:2]}
    # The third block ends the system prompt and begins the request's own.
    assert len({call.blocks[2] for call in calls}) == len(calls)
    assert {len(call.blocks) for call in calls} == {5}


def test_models_with_system_prompts_of_their_own_share_nothing() -> None:
    calls = [s.calls[0] for s in workload(system_tokens=32, system_per_model=True).sessions(1)]
    beginnings = {model: {c.blocks[:2] for c in calls if c.model == model} for model in MODELS}
    assert [len(beginning) for beginning in beginnings.values()] == [1, 1, 1]
    assert len({name for beginning in beginnings.values() for names in beginning for name in names}) == 6


def test_the_description_says_what_it_is() -> None:
    assert workload(system_tokens=40).description == (
        "Poisson for 60 s; prompts 40 system + 1 to 100, answers 1 to 50 tokens; 3 models by Zipf 1"
    )
