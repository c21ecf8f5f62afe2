"""What a router may hand out of a pool that others use, too."""

from math import inf

import pytest

from router.admission.capacity import PoolFigures, SlotLedger
from router.admission.slot import Slot


def slot(prompt: int = 10, expected: int = 10) -> Slot:
    return Slot("a", "shared", prompt, expected, lambda slot, tokens: None)


def ledger(figures: PoolFigures, *slots: Slot, routers: int = 1) -> SlotLedger:
    ledger = SlotLedger(routers, 1)
    ledger.beat(figures)
    for taken in slots:
        ledger.take(taken)
    return ledger


@pytest.mark.parametrize("figures", [PoolFigures(), PoolFigures(replicas=2)])
def test_a_pool_without_readings_takes_any_number(figures: PoolFigures) -> None:
    assert ledger(figures).free_slots() == inf
    assert ledger(figures, slot()).fits(10**9)


def test_a_pool_whose_readings_went_stale_is_full_until_its_replicas_are_gone() -> None:
    pool = ledger(PoolFigures(2, 2, slots=8))
    assert pool.free_slots() == 8
    pool.beat(PoolFigures(2, 1, slots=4))
    assert pool.free_slots() == 4
    pool.beat(PoolFigures(2, 0))
    assert pool.free_slots() == 0
    pool.beat(PoolFigures(0, 0))
    assert pool.free_slots() == inf


def test_our_own_slots_count_at_once() -> None:
    taken = slot()
    pool = ledger(PoolFigures(1, 1, slots=2), taken)
    assert pool.free_slots() == 1
    pool.give_back(taken)
    assert pool.free_slots() == 2


def test_our_own_slots_are_not_taken_for_those_of_others_once_they_are_seen() -> None:
    taken = slot()
    pool = ledger(PoolFigures(1, 1, slots=8, running=3), taken)
    assert pool.free_slots() == 4
    pool.beat(PoolFigures(1, 1, slots=8, running=3))  # it is in its prefill
    assert pool.free_slots() == 4
    pool.serve(taken, 1)
    pool.beat(PoolFigures(1, 1, slots=8, running=4))
    assert pool.free_slots() == 4
    pool.give_back(taken)
    assert pool.free_slots() == 5  # the others still run 3


def test_a_pool_that_runs_more_than_it_should_has_nothing_free() -> None:
    pool = ledger(PoolFigures(1, 1, slots=4, running=9))
    assert pool.free_slots() == 0


def test_each_router_takes_its_part_of_what_is_free_in_one_beat() -> None:
    pool = ledger(PoolFigures(1, 1, slots=10), slot(), slot(), slot(), routers=4)
    assert pool.free_slots() == 0
    pool.beat(PoolFigures(1, 1, slots=10))
    assert pool.free_slots() == 2  # a quarter of 7, rounded up


def test_a_pool_without_a_limit_has_infinitely_many_slots() -> None:
    assert ledger(PoolFigures(1, 1, slots=inf), routers=2).free_slots() == inf


def test_a_slot_claims_its_prompt_and_expected_output_until_it_is_seen() -> None:
    taken = slot(prompt=700, expected=100)
    pool = ledger(PoolFigures(1, 1, slots=4, free_kv_tokens=1000), taken)
    assert pool.fits(200) and not pool.fits(201)
    pool.serve(taken, 60)  # the reading is as old as before
    assert pool.fits(200) and not pool.fits(201)
    pool.beat(PoolFigures(1, 1, slots=4, running=1, free_kv_tokens=240))  # 40 may still come
    assert pool.fits(200) and not pool.fits(201)
    pool.give_back(taken)
    pool.take(slot(prompt=0, expected=0))
    assert pool.fits(1000) and not pool.fits(1001)


def test_a_slot_that_outgrew_its_expectation_claims_nothing_more() -> None:
    taken = slot(prompt=100, expected=10)
    pool = ledger(PoolFigures(1, 1, slots=4, free_kv_tokens=1000), taken)
    pool.serve(taken, 50)
    pool.beat(PoolFigures(1, 1, slots=4, running=1, free_kv_tokens=850))
    pool.serve(taken, 50)
    assert pool.fits(800) and not pool.fits(801), "in use, though the figures do not say so yet"
    pool.beat(PoolFigures(1, 1, slots=4, running=1, free_kv_tokens=800))
    assert pool.fits(800)


def test_an_empty_pool_takes_a_request_that_fits_nowhere() -> None:
    """Waiting would free nothing; the replica knows better, and says so."""
    figures = PoolFigures(1, 1, slots=4, free_kv_tokens=100)
    assert ledger(figures).fits(1000)
    assert not ledger(figures, slot()).fits(1000)
    assert not ledger(PoolFigures(1, 1, slots=4, running=1, free_kv_tokens=100)).fits(1000)
