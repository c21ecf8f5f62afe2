"""A save that finds no room waits for a ticket to end, as long as one can."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.engine import EngineConfig
from deployments.handoff_desk import HandoffDesk
from heliostat.spec import Family, Pool, Transfer
from heliostat.wire import Role
from kvtransfer.handoff import CopyRecord, Direction
from kvtransfer.registry import create_store
from kvtransfer.transport import KVHeader, KVStore


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    return EngineConfig(
        role=Role.PREFILL,
        name="base",
        pool=Pool(weights="none"),
        family=Family(base="none"),
        transfer=Transfer(directory=str(tmp_path / "kv")),
        weights=tmp_path,
        domain="domain",
        replica="prefill-base#1",
        owner=uuid.uuid4().hex,
    )


@pytest.fixture
def store(config: EngineConfig) -> Iterator[KVStore]:
    store = create_store(config.transfer, config.owner)
    yield store
    store.close()


@pytest.fixture
async def desk(config: EngineConfig, store: KVStore) -> HandoffDesk:
    desk = HandoffDesk(config)
    await desk.open()
    return desk


def save(desk: HandoffDesk, store: KVStore, digest: str):
    """What the engine's worker does, and the ticket for it."""
    params = desk.new_params("domain", digest, 3)
    writer = store.open(params.ticket_id, KVHeader("domain", digest, "layout", 3, 1, 1, 64))
    writer.write(0, [[memoryview(bytearray(64))]])
    writer.commit()
    record = CopyRecord(params.ticket_id, "domain", Direction.SAVE, 1, 64, 0.1, 0.0)
    return desk.commit(params, record)


async def test_there_is_no_room_to_wait_for_when_nothing_is_out(desk: HandoffDesk) -> None:
    assert not await desk.room_comes(lambda: False)


async def test_room_comes_when_a_reader_has_read(desk: HandoffDesk, store: KVStore, config) -> None:
    ticket = save(desk, store, "d1")
    waiting = asyncio.create_task(desk.room_comes(lambda: False))
    reader = HandoffDesk(config)
    reader.admit(ticket)
    reader.admitted(ticket)
    assert await asyncio.wait_for(waiting, 5)
    (figures,) = await desk.figures()
    assert (figures.open, figures.committed, figures.admitted) == (0, 1, 1)


async def test_a_ticket_that_is_withdrawn_is_over_everywhere(desk: HandoffDesk, store: KVStore) -> None:
    ticket = save(desk, store, "d1")
    assert await desk.withdraw(ticket.ticket_id)
    assert not await desk.withdraw(ticket.ticket_id)
    assert not await desk.withdraw("0f")
    assert not await desk.room_comes(lambda: False)


async def test_the_same_prompt_again_is_shared(desk: HandoffDesk, store: KVStore) -> None:
    assert await desk.share("d1") is None
    first = save(desk, store, "d1")
    second = await desk.share("d1")
    assert second is not None
    assert second.ticket_id != first.ticket_id
    assert (second.num_tokens, second.num_blocks, second.num_bytes) == (3, 1, 64)
    assert second.address == first.address
