"""An arena and who holds what in it: nothing is read that was not held, nothing is held for ever."""

import pytest

from heliostat.errors import KVRefusedError, NoSpaceError, OwnerLostError, TicketExpiredError
from kvtransfer.transport import Outcome, Settlement

NAME = "0abc"
HALF = 8000
"""Blocks in one layer: half of an arena of 1 MiB."""


@pytest.fixture(params=["nixl", "nccl"])
def side(request: pytest.FixtureRequest, make_side):
    return make_side(request.param, memory_gib=0.001)


@pytest.fixture
def kv(kv_class):
    return kv_class


def lose_connection(side) -> None:
    for peer in side.reader._peers.values():
        peer.control.close()


def test_kv_is_held_for_an_open_reader_and_no_longer(side, kv) -> None:
    address = side.own.address()
    side.put(NAME, kv(HALF, 1))
    reader = side.reader.get(NAME, address)
    side.reader.release(NAME, address, Outcome.ADMITTED)
    with pytest.raises(NoSpaceError):
        side.put("0b", kv(2 * HALF, 1), digest="d2")
    reader.close()
    side.put("0b", kv(2 * HALF, 1), digest="d2")


def test_a_read_after_the_connection_was_lost_is_an_error_and_no_other_kv(side, kv) -> None:
    address = side.own.address()
    side.put(NAME, kv(4, 1))
    reader = side.reader.get(NAME, address)
    lose_connection(side)
    side.get(NAME, 0, 4, 1)  # somebody else has made a new one
    with pytest.raises((OwnerLostError, TicketExpiredError)):
        reader.read(0, side.memory(kv(4, 1)).all())
    reader.close()


def test_after_a_lost_connection_reading_goes_on_with_a_new_one(side, kv) -> None:
    written = kv(4, 2)
    side.put(NAME, written)
    for lost_by in (lambda: None, lambda: side.reader.release("0f", side.own.address(), Outcome.ADMITTED)):
        assert side.get(NAME, 0, 4, 2).layers == written.layers
        lose_connection(side)
        lost_by()  # a release may be the first to connect again


def test_a_wait_ends_when_its_reader_is_gone(side, kv) -> None:
    writer = side.store.open(NAME, side.header(4, 1))
    reader = side.reader.get(NAME, side.own.address())
    reader.close()
    with pytest.raises(TicketExpiredError, match="no longer held"):
        reader.wait(1, 60)
    writer.abort()


def test_a_name_shared_again_lets_go_of_what_it_named_before(side, kv) -> None:
    address = side.own.address()
    side.put("0a", kv(HALF, 1), digest="d1")
    side.put("0b", kv(4, 1), digest="d2")
    assert side.own.share("d2", "0a") is not None
    assert side.own.settled() == [Settlement("0a", Outcome.RELEASED)]
    for name in ("0a", "0b"):
        assert side.reader.release(name, address, Outcome.ADMITTED)
    side.put("0c", kv(2 * HALF, 1), digest="d3")


def test_kv_of_one_prompt_put_again_frees_the_older_once_nobody_reads_it(side, kv) -> None:
    address, old, read = side.own.address(), kv(HALF, 1), side.memory(kv(HALF, 1))
    side.put("0a", old)
    reader = side.reader.get("0a", address)
    new = kv(4, 1)
    side.put("0b", new)
    side.reader.release("0a", address, Outcome.ADMITTED)
    reader.read(0, read.all())
    assert read.layers == old.layers
    reader.close()
    assert side.get("0b", 0, 4, 1).layers == new.layers
    side.reader.release("0b", address, Outcome.ADMITTED)
    side.put("0c", kv(2 * HALF, 1), digest="d3")


def test_an_expired_ticket_is_settled_as_such(make_side, kv) -> None:
    side = make_side("nixl", memory_gib=0.001, lease_s=1e-9)
    side.put(NAME, kv(1, 1))
    side.own.sweep()
    assert side.own.settled() == [Settlement(NAME, Outcome.EXPIRED)]


def test_a_reader_gets_no_other_kv_than_its_tickets(make_side, kv) -> None:
    side = make_side("nccl", memory_gib=0.001)
    side.put(NAME, kv(4, 1))
    side.put("0b", kv(4, 1), digest="d2")
    reader = side.reader.get("0b", side.own.address())
    reader._start -= 4096  # that of the other
    with pytest.raises(KVRefusedError, match="no other"):
        reader.read(0, side.memory(kv(4, 1)).all())
    reader.close()
