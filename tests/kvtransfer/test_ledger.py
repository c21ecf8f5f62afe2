"""Every handoff is booked once on each side, and KV that nobody came for is counted as stranded."""

import pytest

from heliostat.status import HandoffFigures
from kvtransfer.handoff import CopyRecord, Direction
from kvtransfer.ledger import GRACE_S, Ledger
from kvtransfer.transport import Outcome, Settlement

LEASE_S = 30.0


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger("shm")
    for name in ("a", "b", "c"):
        ledger.commit(name, "domain", 4, now_s=100.0, lease_s=LEASE_S)
    return ledger


def only(ledger: Ledger) -> HandoffFigures:
    (figures,) = ledger.figures()
    return figures


def test_a_ticket_is_committed_then_admitted_then_released(ledger: Ledger) -> None:
    assert (only(ledger).open, only(ledger).committed, only(ledger).admitted) == (3, 3, 0)
    ledger.admit("a")
    ledger.admit("a")
    assert (only(ledger).open, only(ledger).admitted, only(ledger).released) == (3, 1, 0)
    ledger.end("a", Outcome.RELEASED, 105.0)
    ledger.end("a", Outcome.RELEASED, 106.0)
    assert (only(ledger).open, only(ledger).admitted, only(ledger).released) == (2, 1, 1)
    assert only(ledger).stranded_block_s == 0


def test_kv_that_was_given_up_unread_was_stranded_for_blocks_times_seconds(ledger: Ledger) -> None:
    ledger.end("b", Outcome.RELEASED, 102.5)
    assert only(ledger).stranded_block_s == 4 * 2.5


def test_news_from_readers_settle_tickets(ledger: Ledger) -> None:
    ledger.settle([Settlement("a", Outcome.ADMITTED), Settlement("unknown", Outcome.ADMITTED)], 101.0)
    assert (only(ledger).open, only(ledger).admitted, only(ledger).released) == (2, 1, 1)


def test_a_ticket_without_news_expires_after_its_lease(ledger: Ledger) -> None:
    ledger.settle([], 100.0 + LEASE_S + GRACE_S)
    assert only(ledger).expired == 0
    ledger.settle([Settlement("a", Outcome.ADMITTED)], 100.0 + LEASE_S + GRACE_S + 0.1)
    assert (only(ledger).open, only(ledger).admitted, only(ledger).expired) == (0, 1, 2)
    assert only(ledger).stranded_block_s == pytest.approx(2 * 4 * (LEASE_S + GRACE_S + 0.1))


def test_copies_and_failures_are_summed_by_domain_and_class(ledger: Ledger) -> None:
    good = CopyRecord("a", "domain", Direction.LOAD, 4, 1000, 2.0, 1.5)
    for record in (
        good,
        good,
        CopyRecord("b", "domain", Direction.LOAD, 4, 0, 0.0, 0.0, "expired", "gone"),
        CopyRecord("c", "other", Direction.LOAD, 4, 500, 1.0, 0.0),
    ):
        ledger.copied(record)
    domain, other = ledger.figures()
    assert (domain.copies, domain.num_bytes, domain.ms, domain.hidden_ms) == (2, 2000, 4.0, 3.0)
    assert domain.failures == {"expired": 1}
    assert domain.gb_per_s == 2000 / 4.0 / 1e6
    assert (other.domain, other.copies, other.open, other.failures) == ("other", 1, 0, {})


def test_only_open_tickets_are_in_the_ledger(ledger: Ledger) -> None:
    assert "a" in ledger
    ledger.end("a", Outcome.EXPIRED, 101.0)
    assert "a" not in ledger
