from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from simulator.workload.agents import ICARUS_REACT, REACT, REFLEXION, SHAPES, Agents, Shape
from simulator.workload.base import Session

MODELS = ("a", "b", "c", "d")


def sessions(shape: Shape, models: tuple[str, ...] = MODELS, seed: int = 1) -> list[Session]:
    return list(Agents(models, rate_per_s=2.0, duration_s=30.0, shape=shape).sessions(seed))


def hit_ratio(shape: Shape, shared: bool) -> float:
    """Hits over prompt tokens in prefix caches with room for all, one per model or one for all.

    PrefillShare's caches keep prompts only: answers are written by other weights.
    """
    hits = total = 0
    caches: dict[str, set[int]] = {}
    for session in sessions(shape):
        for call in session.calls:
            cache = caches.setdefault("all" if shared else call.model, set())
            full = call.blocks[: call.prompt_tokens // 16]
            hits += 16 * sum(name in cache for name in full)
            total += call.prompt_tokens
            cache.update(full)
    return hits / total


def test_a_seed_gives_the_same_sessions_and_another_seed_others() -> None:
    one = sessions(REACT)
    assert len(one) == pytest.approx(60, abs=24)
    assert one == sessions(REACT)
    assert one != sessions(REACT, seed=2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_prompt_begins_with_all_that_was_kept_before(shape: Shape) -> None:
    for session in sessions(shape):
        assert len(session.calls) == shape.calls
        for call, following in pairwise(session.calls):
            assert following.prompt_tokens == call.prompt_tokens + 100 + 350
            assert following.blocks[: len(call.kept_blocks)] == call.kept_blocks
            full = call.prompt_tokens // 16
            assert call.kept_blocks[:full] == call.blocks[:full]
        for call in session.calls:
            assert len(call.blocks) == -(-call.prompt_tokens // 16)
            assert len(call.kept_blocks) == (call.prompt_tokens + call.output_tokens) // 16
        last = session.calls[-1]
        assert last.prompt_tokens + last.output_tokens == shape.longest_tokens


def test_sessions_share_the_common_beginning_and_nothing_else() -> None:
    one, two = (session.calls[-1] for session in sessions(REACT)[:2])
    assert set(one.blocks) & set(two.blocks) == set(one.blocks[: 1000 // 16])


def test_a_partly_filled_block_is_not_the_full_one_that_it_becomes() -> None:
    call, following = sessions(REACT)[0].calls[:2]
    assert call.prompt_tokens % 16
    assert call.blocks[-1] not in following.blocks


def test_a_turn_calls_every_model_once_and_sessions_begin_one_model_later() -> None:
    one, two = sessions(REACT)[:2]
    assert [call.model for call in one.calls] == list("abcd" * 3)
    assert [call.model for call in two.calls] == list("bcda" * 3)


def test_icarus_calls_one_model_per_turn() -> None:
    calls = sessions(ICARUS_REACT, models=("a", "b"))[0].calls
    assert "".join(call.model for call in calls) == "abababab"


def test_models_by_zipf_are_drawn_per_call() -> None:
    agents = Agents(MODELS, rate_per_s=10.0, duration_s=60.0, assign="zipf", zipf=1.0)
    counts = Counter(call.model for session in agents.sessions(1) for call in session.calls)
    assert counts["a"] / counts.total() == pytest.approx(0.48, abs=0.02)


def test_react_has_the_hit_ratios_that_prefillshare_reports() -> None:
    assert hit_ratio(REACT, shared=True) == pytest.approx(0.89, abs=0.01)
    assert hit_ratio(REACT, shared=False) == pytest.approx(0.60, abs=0.01)


def test_reflexion_has_about_twice_the_context_of_react() -> None:
    assert REFLEXION.longest_tokens / REACT.longest_tokens == pytest.approx(2.0, abs=0.25)


def test_a_common_part_longer_than_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="common_tokens 1000 is larger than initial_tokens 500"):
        replace(REACT, initial_tokens=500)
