"""KV of one engine arrives in another, byte for byte, or its blocks are reported as invalid."""

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from heliostat.spec import Transfer
from kvtransfer.handoff import BlockCopy, CopyRecord, Direction, HandoffParams
from kvtransfer.loader import Loader
from kvtransfer.memory import BlockMemory
from kvtransfer.registry import create_client, create_store
from kvtransfer.saver import Saver
from kvtransfer.transport import KVClient, Outcome

NUM_LAYERS, NUM_BLOCKS = 3, 10
SAVE = HandoffParams(Direction.SAVE, "0abc", "domain", "d1", num_tokens=13)
SAVED = (7, 2, 3, 9)
FREE = (1, 5, 6, 0)
OWNER = uuid.uuid4().hex


def tensors(seed: int, num_layers: int = NUM_LAYERS) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        f"layer.{index}": torch.randn(NUM_BLOCKS, 2, 4, 8, generator=random) for index in range(num_layers)
    }


def blocks(caches: dict[str, torch.Tensor], block_ids: tuple[int, ...]) -> list[torch.Tensor]:
    return [tensor[list(block_ids)] for tensor in caches.values()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@dataclass
class Prefill:
    """A prefill engine's KV and the saver over it."""

    caches: dict[str, torch.Tensor]
    saver: Saver
    client: KVClient

    def save(self, first: int, block_ids: tuple[int, ...], last: bool = True) -> CopyRecord | None:
        self.saver.save(BlockCopy("p", SAVE, first, block_ids, len(SAVED), last))
        records = self.saver.take_records()
        return records[0] if records else None

    @property
    def load(self) -> HandoffParams:
        """What a reader gets to know of the ticket."""
        return replace(SAVE, direction=Direction.LOAD, address=self.client.address())


@dataclass
class Decode:
    """A decode engine's KV and the loader over it."""

    caches: dict[str, torch.Tensor]
    fresh: dict[str, torch.Tensor]
    loader: Loader

    def load(self, params: HandoffParams, block_ids: tuple[int, ...] = FREE, first: int = 0) -> str | None:
        """The reason why it failed."""
        self.loader.load(BlockCopy("r", params, first, block_ids, len(SAVED)))
        return self.outcome(block_ids)

    def outcome(self, block_ids: tuple[int, ...]) -> str | None:
        (record,) = self.loader.take_records()
        assert (record.num_bytes > 0) == (record.failure is None) == (record.kind == "")
        assert self.loader.take_invalid_blocks() == (set(block_ids) if record.failure else set())
        return record.failure

    def untouched(self) -> bool:
        return equal(list(self.caches.values()), list(self.fresh.values()))


@pytest.fixture(params=["shm", "nixl", "nccl"])
def transfer(request: pytest.FixtureRequest, tmp_path: Path) -> Transfer:
    return Transfer(transport=request.param, directory=str(tmp_path / "kv"), memory_gib=0.001)


@pytest.fixture
def prefill(transfer: Transfer) -> Iterator[Prefill]:
    caches = tensors(1)
    saver = Saver(create_store(transfer, OWNER), BlockMemory(caches, "amx"))
    yield Prefill(caches, saver, create_client(transfer, OWNER))
    saver.close()


NewDecode = Callable[..., Decode]


@pytest.fixture
def new_decode(transfer: Transfer) -> Iterator[NewDecode]:
    loaders: list[Loader] = []

    def create(packing: str = "amx", num_layers: int = NUM_LAYERS) -> Decode:
        caches = tensors(2, num_layers)
        client = create_client(transfer, uuid.uuid4().hex)
        loaders.append(Loader(client, BlockMemory(caches, packing)))
        return Decode(caches, tensors(2, num_layers), loaders[-1])

    yield create
    for loader in loaders:
        loader.close()


@pytest.fixture
def decode(new_decode: NewDecode) -> Decode:
    return new_decode()


def test_the_prompt_arrives_in_every_layer_and_nothing_else_changes(prefill: Prefill, decode: Decode) -> None:
    record = prefill.save(0, SAVED)
    assert record is not None and record.failure is None
    assert record.num_bytes == NUM_LAYERS * len(SAVED) * 2 * 4 * 8 * 4
    assert decode.load(prefill.load) is None
    assert equal(blocks(decode.caches, FREE), blocks(prefill.caches, SAVED))
    others = tuple(set(range(NUM_BLOCKS)) - set(FREE))
    assert equal(blocks(decode.caches, others), blocks(decode.fresh, others))


def test_chunks_that_leave_one_after_the_other_arrive_as_one_prompt(prefill: Prefill, decode: Decode) -> None:
    assert prefill.save(0, SAVED[:1], last=False) is None
    assert prefill.save(1, SAVED[1:3], last=False) is None
    record = prefill.save(3, SAVED[3:])
    assert record is not None and record.num_bytes == NUM_LAYERS * len(SAVED) * 2 * 4 * 8 * 4
    assert decode.load(prefill.load) is None
    assert equal(blocks(decode.caches, FREE), blocks(prefill.caches, SAVED))


def test_a_load_can_begin_before_the_last_chunk(prefill: Prefill, decode: Decode) -> None:
    prefill.save(0, SAVED[:2], last=False)
    prefill.saver.settle(["p"])
    decode.loader.load_later(BlockCopy("r", replace(prefill.load, streamed=True), 0, FREE, len(SAVED)))
    prefill.save(2, SAVED[2:])
    assert decode.loader.take_loaded(10) == {"r"}
    assert decode.outcome(FREE) is None
    assert equal(blocks(decode.caches, FREE), blocks(prefill.caches, SAVED))


def test_a_prefill_that_is_dropped_half_way_fails_the_load(prefill: Prefill, decode: Decode) -> None:
    prefill.save(0, SAVED[:2], last=False)
    prefill.saver.settle(["p"])
    decode.loader.load_later(BlockCopy("r", replace(prefill.load, streamed=True), 0, FREE, len(SAVED)))
    prefill.saver.drop(["p"])
    assert decode.loader.take_loaded(10) == {"r"}
    assert decode.outcome(FREE)


def test_a_load_from_a_later_block_fills_only_the_rest(prefill: Prefill, decode: Decode) -> None:
    prefill.save(0, SAVED)
    assert decode.load(prefill.load, FREE[:2], first=2) is None
    assert equal(blocks(decode.caches, FREE[:2]), blocks(prefill.caches, SAVED[2:]))
    assert equal(blocks(decode.caches, FREE[2:]), blocks(decode.fresh, FREE[2:]))


@pytest.mark.parametrize(
    ("wanted", "difference"),
    [
        ({"domain": "other"}, "domain domain, not other"),
        ({"prefix_digest": "d2"}, "prefix_digest d1, not d2"),
        ({"num_tokens": 12}, "num_tokens 13, not 12"),
    ],
)
def test_kv_of_another_module_or_prompt_is_refused(
    prefill: Prefill, decode: Decode, wanted: dict[str, str | int], difference: str
) -> None:
    prefill.save(0, SAVED)
    assert decode.load(replace(prefill.load, **wanted)) == f"the KV of ticket 0abc has {difference}"
    assert decode.untouched()


@pytest.mark.parametrize("other", [{"packing": "vec"}, {"num_layers": 2}])
def test_kv_of_another_layout_is_refused(
    prefill: Prefill, new_decode: NewDecode, other: dict[str, str | int]
) -> None:
    prefill.save(0, SAVED)
    decode = new_decode(**other)
    assert "has layout torch.float32 (2, 4, 8) x3 amx, not " in (decode.load(prefill.load) or "")
    assert decode.untouched()


def test_a_ticket_without_kv_fails_and_marks_the_blocks(prefill: Prefill, decode: Decode) -> None:
    assert "the KV of ticket 0abc is gone" in (decode.load(prefill.load) or "")


def test_no_descriptor_stays_open_after_a_load_or_a_refusal(prefill: Prefill, decode: Decode) -> None:
    prefill.save(0, SAVED)
    decode.load(prefill.load)  # connections to an owner stay
    open_before = len(os.listdir("/proc/self/fd"))
    decode.load(prefill.load)
    decode.load(replace(prefill.load, domain="other"))
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_preempted_request_gets_its_kv_back_although_the_ticket_is_over(
    prefill: Prefill, decode: Decode
) -> None:
    """Rule 5: its blocks are given away, it gets others later, and nothing is computed again."""
    prefill.save(0, SAVED)
    assert decode.load(prefill.load) is None
    prefill.client.release("0abc", prefill.client.address(), Outcome.ADMITTED)
    decode.loader.stash(BlockCopy("r", prefill.load, 0, FREE, len(SAVED)))
    for tensor in decode.caches.values():
        tensor.zero_()
    others = (8, 3, 2, 9)
    assert decode.load(prefill.load, others) is None
    assert equal(blocks(decode.caches, others), blocks(prefill.caches, SAVED))
    # The blocks hold it again; the stash was for one load.
    assert "is gone" in (decode.load(prefill.load) or "")


def test_a_stash_can_restore_a_part(prefill: Prefill, decode: Decode) -> None:
    prefill.save(0, SAVED)
    decode.load(prefill.load)
    decode.loader.stash(BlockCopy("r", prefill.load, 0, FREE, len(SAVED)))
    assert decode.load(prefill.load, (8, 3), first=2) is None
    assert equal(blocks(decode.caches, (8, 3)), blocks(prefill.caches, SAVED[2:]))


def test_a_stash_goes_with_its_request(prefill: Prefill, decode: Decode) -> None:
    decode.loader.stash(BlockCopy("r", prefill.load, 0, FREE, len(SAVED)))
    decode.loader.forget(["r", "unknown"])
    assert "is gone" in (decode.load(prefill.load) or "")


def test_a_failed_save_is_a_record_and_not_an_exception(prefill: Prefill) -> None:
    too_large = replace(SAVE, ticket_id="0b")
    saver = prefill.saver
    saver.save(BlockCopy("q", too_large, 0, SAVED[:1], 10_000, last=False))
    saver.save(BlockCopy("q", too_large, 1, SAVED[1:], 10_000))
    (record,) = saver.take_records()
    assert (record.num_bytes, record.kind) == (0, "no_space")
    assert "transfer.memory_gib" in (record.failure or "")


def test_a_refused_request_marks_its_blocks_and_gives_the_reason(prefill: Prefill, decode: Decode) -> None:
    decode.loader.refuse(BlockCopy("r", prefill.load, 0, FREE, len(SAVED)), "rule 5")
    assert decode.outcome(FREE) == "rule 5"
