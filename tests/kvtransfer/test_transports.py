"""Every transport keeps the same promises: bytes unchanged, names that end, errors that say what happened."""

import threading

import pytest

from docs.site.blocks import matches
from heliostat.errors import (
    KVRefusedError,
    NoSpaceError,
    OwnerLostError,
    TicketExpiredError,
    TransportError,
)
from kvtransfer.transport import Outcome, Settlement

TRANSPORTS = ("shm", "nixl", "nccl")
NAME = "0abc"


@pytest.fixture(params=TRANSPORTS)
def side(request: pytest.FixtureRequest, make_side):
    return make_side(request.param, memory_gib=0.001)


@pytest.fixture
def kv(kv_class):
    return kv_class


def test_blocks_come_back_in_order_in_every_layer(side, kv) -> None:
    written, read = kv(4, 3), side.memory(kv(4, 3))
    taken, target = [2, 0, 3, 1], [1, 3, 0, 2]
    writer = side.store.open(NAME, side.header(4, 3))
    writer.write(0, written.views(taken))
    writer.commit()
    reader = side.reader.get(NAME, side.own.address())
    reader.read(0, read.views(target))
    reader.close()
    assert read.blocks(target) == written.blocks(taken)


def test_reading_may_begin_at_any_block(side, kv) -> None:
    written = kv(5, 2)
    side.put(NAME, written)
    assert side.get(NAME, 3, 2, 2).blocks([0, 1]) == written.blocks([3, 4])


def test_a_reader_sees_the_header_that_was_put(side, kv) -> None:
    side.put(NAME, kv(2, 5))
    reader = side.reader.get(NAME, side.own.address())
    assert reader.header == side.header(2, 5)
    reader.close()


def test_kv_can_be_read_while_it_is_being_written(side, kv) -> None:
    written, read = kv(6, 2), side.memory(kv(6, 2))
    writer = side.store.open(NAME, side.header(6, 2))
    writer.write(0, written.views([0, 1]))
    reader = side.reader.get(NAME, side.own.address())
    assert reader.wait(1, 5) == 2
    reader.read(0, read.views([0, 1]))
    arrived: list[int] = []
    waiting = threading.Thread(target=lambda: arrived.append(reader.wait(3, 5)))
    waiting.start()
    writer.write(2, written.views([2, 3, 4, 5]))
    waiting.join()
    assert arrived == [6]
    reader.read(2, read.views([2, 3, 4, 5]))
    writer.commit()
    reader.close()
    assert read.layers == written.layers


def test_a_reader_of_kv_whose_writer_gave_up_is_told(side, kv) -> None:
    writer = side.store.open(NAME, side.header(6, 2))
    writer.write(0, kv(1, 2).all())
    reader = side.reader.get(NAME, side.own.address())
    writer.abort()
    with pytest.raises((OwnerLostError, TicketExpiredError)):
        reader.wait(6, 5)
    reader.close()
    with pytest.raises(TicketExpiredError):
        side.reader.get(NAME, side.own.address())


def test_a_reader_whose_writer_stalls_waits_no_longer_than_it_wants(side, kv) -> None:
    writer = side.store.open(NAME, side.header(6, 2))
    writer.write(0, kv(1, 2).all())
    reader = side.reader.get(NAME, side.own.address())
    with pytest.raises(OwnerLostError, match=r"1 of 6 blocks came, and then no more"):
        reader.wait(6, 0.01)
    reader.close()
    writer.abort()


def test_a_missing_name_is_an_expired_ticket(side) -> None:
    with pytest.raises(TicketExpiredError, match=f"the KV of ticket {NAME} is gone"):
        side.reader.get(NAME, side.own.address())


def test_an_open_reader_outlives_the_release_of_its_name(side, kv) -> None:
    written, read = kv(2, 1), side.memory(kv(2, 1))
    side.put(NAME, written)
    address = side.own.address()
    reader = side.reader.get(NAME, address)
    assert side.reader.release(NAME, address, Outcome.ADMITTED)
    assert not side.reader.release(NAME, address, Outcome.ADMITTED)
    reader.read(0, read.all())
    reader.close()
    assert read.layers == written.layers
    with pytest.raises(TicketExpiredError):
        side.reader.get(NAME, address)


def test_a_name_put_again_holds_the_newer_kv(side, kv) -> None:
    new = kv(1, 1)
    side.put(NAME, kv(3, 1))
    side.put(NAME, new)
    assert side.get(NAME, 0, 1, 1).layers == new.layers


def test_kv_can_have_several_names_and_each_ends_alone(side, kv) -> None:
    written = kv(3, 2)
    side.put(NAME, written, digest="d1")
    assert side.own.share("d1", "0b") == side.header(3, 2)
    assert side.own.share("d1", "0c") == side.header(3, 2)
    assert side.own.share("d2", "0d") is None
    side.reader.release(NAME, side.own.address(), Outcome.ADMITTED)
    assert side.get("0b", 0, 3, 2).layers == written.layers
    side.reader.release("0b", side.own.address(), Outcome.ADMITTED)
    assert side.get("0c", 0, 3, 2).layers == written.layers


def test_kv_without_a_ticket_can_still_be_shared_until_the_room_is_wanted(side, kv) -> None:
    written = kv(3, 2)
    side.put(NAME, written)
    side.reader.release(NAME, side.own.address(), Outcome.ADMITTED)
    assert side.own.share("d1", "0b") is not None
    assert side.get("0b", 0, 3, 2).layers == written.layers
    side.reader.release("0b", side.own.address(), Outcome.ADMITTED)
    for number in range(1, 40):  # of 100 KiB, in an arena of 1 MiB
        name = f"{number:x}"
        side.put(name, kv(800, 2), digest=f"{number:04x}")
        side.reader.release(name, side.own.address(), Outcome.ADMITTED)
    assert side.own.share("d1", "0c") is None


def test_kv_that_is_not_finished_is_not_shared(side, kv) -> None:
    writer = side.store.open(NAME, side.header(3, 2))
    writer.write(0, kv(3, 2).all())
    assert side.own.share("d1", "0b") is None
    writer.commit()
    assert side.own.share("d1", "0b") is not None


def test_no_room_is_an_error_that_names_the_setting_and_room_comes_back(side, kv) -> None:
    address = side.own.address()
    names = [f"{number:x}" for number in range(40)]
    put: list[str] = []
    with pytest.raises(NoSpaceError, match=r"transfer\.memory_gib"):
        for name in names:
            side.put(name, kv(800, 2), digest=f"{name}f")
            put.append(name)
    assert 5 <= len(put) < 20
    for name in put:
        assert side.reader.release(name, address, Outcome.RELEASED)
    written = kv(800, 2)
    side.put("0ff", written)
    assert side.get("0ff", 0, 800, 2).layers == written.layers


def test_a_segment_is_never_reused_under_a_reader(side, kv) -> None:
    """The reader gets its own bytes or an error; other KV would be a wrong answer that nobody notices."""
    written = kv(800, 2)
    side.put(NAME, written)
    reader = side.reader.get(NAME, side.own.address())
    side.reader.release(NAME, side.own.address(), Outcome.RELEASED)
    for number in range(1, 30):
        side.put(f"{number:x}", kv(800, 2), digest=f"{number:04x}")
        side.reader.release(f"{number:x}", side.own.address(), Outcome.ADMITTED)
    read = side.memory(kv(800, 2))
    try:
        reader.read(0, read.all())
        assert read.layers == written.layers
    except TicketExpiredError as error:
        assert "reused" in str(error)
    reader.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sweeping_releases_what_is_past_its_lease(make_side, kv, transport: str) -> None:
    side = make_side(transport, lease_s=1e-9)
    for name in ("01d", "2e"):
        side.put(name, kv(1, 1))
    assert side.own.sweep() == 2
    assert side.own.sweep() == 0
    with pytest.raises(TicketExpiredError):
        side.reader.get("2e", side.own.address())


def test_sweeping_leaves_what_has_a_lease(side, kv) -> None:
    side.put(NAME, kv(1, 1))
    assert side.own.sweep() == 0
    side.get(NAME, 0, 1, 1)


def test_sweeping_leaves_what_is_being_written(side, kv) -> None:
    writer = side.store.open(NAME, side.header(2, 1))
    writer.write(0, kv(1, 1).all())
    assert side.own.sweep() == 0
    writer.write(1, kv(1, 1).all())
    assert side.own.sweep() == 0
    side.get(NAME, 0, 2, 1)
    writer.commit()


def test_two_readers_of_one_name_close_each_for_itself(side, kv) -> None:
    written, read = kv(800, 2), side.memory(kv(800, 2))
    side.put(NAME, written)
    first, second = (side.reader.get(NAME, side.own.address()) for _ in range(2))
    side.reader.release(NAME, side.own.address(), Outcome.ADMITTED)
    first.close()
    for number in range(1, 30):
        side.put(f"{number:x}", kv(800, 2), digest=f"{number:04x}")
        side.reader.release(f"{number:x}", side.own.address(), Outcome.ADMITTED)
    try:
        second.read(0, read.all())
        assert read.layers == written.layers
    except TicketExpiredError as error:
        assert "reused" in str(error)
    second.close()


def test_the_owner_learns_how_its_tickets_ended(side, kv) -> None:
    for name in ("0a", "0b"):
        side.put(name, kv(1, 1))
    side.reader.release("0a", side.own.address(), Outcome.ADMITTED)
    side.reader.release("0b", side.own.address(), Outcome.RELEASED)
    assert side.own.settled() == [Settlement("0a", Outcome.ADMITTED), Settlement("0b", Outcome.RELEASED)]
    assert side.own.settled() == []


def test_more_views_than_one_system_call_takes_are_copied_whole(side, kv) -> None:
    written, read = kv(1031, 1), side.memory(kv(1031, 1))
    reverse = range(1030, -1, -1)
    writer = side.store.open(NAME, side.header(1031, 1))
    writer.write(0, written.views(reverse))
    writer.commit()
    reader = side.reader.get(NAME, side.own.address())
    reader.read(0, read.views(reverse))
    reader.close()
    assert read.layers == written.layers


@pytest.mark.parametrize(("first", "blocks", "layers"), [(2, 3, 2), (0, 4, 3), (4, 1, 2)])
def test_blocks_that_are_not_there_are_refused(side, kv, first: int, blocks: int, layers: int) -> None:
    side.put(NAME, kv(4, 2))
    with pytest.raises(TransportError):
        side.get(NAME, first, blocks, layers)
    writer = side.store.open("0b", side.header(4, 2))
    with pytest.raises(TransportError):
        writer.write(first, kv(blocks, layers).all())
    writer.abort()


def test_kv_of_another_host_is_refused_with_what_to_do(side) -> None:
    boot = next(part for part in side.own.address().split("/") if "-" in part)
    elsewhere = side.own.address().replace(boot, "another-boot")
    with pytest.raises(KVRefusedError, match=r"another host.*(nixl or nccl|host: node)"):
        side.reader.get(NAME, elsewhere)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_large_kv_arrives_in_parts_and_in_memory_that_was_used_before(make_side, kv, transport: str) -> None:
    """From 1 MiB on, shm copies through a mapping that stays."""
    blocks, half = 12_000, 6_000 * 64
    side = make_side(transport, memory_gib=0.002)
    for number in range(4):
        written, read = kv(blocks, 2), side.memory(kv(blocks, 2))
        writer = side.store.open(f"{number}a", side.header(blocks, 2, f"d{number}"))
        writer.write(0, [[memoryview(layer)[:half]] for layer in written.layers])
        writer.write(6_000, [[memoryview(layer)[half:]] for layer in written.layers])
        writer.commit()
        reader = side.reader.get(f"{number}a", side.own.address())
        reader.read(0, [[memoryview(layer)] for layer in read.layers])
        reader.close()
        side.reader.release(f"{number}a", side.own.address(), Outcome.ADMITTED)
        assert read.layers == written.layers


def refused(side) -> str:
    boot = next(part for part in side.own.address().split("/") if "-" in part)
    with pytest.raises(KVRefusedError) as caught:
        side.reader.get(NAME, side.own.address().replace(boot, "another-boot"))
    return str(caught.value)


def test_the_page_has_the_words_for_shared_memory_elsewhere(make_side, shown: str) -> None:
    assert matches(shown, refused(make_side("shm")))


@pytest.mark.parametrize("transport", ["nixl", "nccl"])
def test_the_page_has_the_words_for_a_loopback_elsewhere(make_side, transport: str, shown: str) -> None:
    assert matches(shown, refused(make_side(transport)))
