"""KV of one engine arrives in another, byte for byte, or its blocks are reported as invalid."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from kvtransfer.copier import KVCopier
from kvtransfer.handoff import BlockCopy, Direction, HandoffParams
from kvtransfer.memory import BlockMemory
from kvtransfer.shm import ShmTransport

NUM_LAYERS, NUM_BLOCKS = 3, 10
SAVE = HandoffParams(Direction.SAVE, "0abc", "domain", "digest", num_tokens=13)
LOAD = replace(SAVE, direction=Direction.LOAD)
SAVED = (7, 2, 3, 9)
FREE = (1, 5, 6, 0)


@dataclass
class Engine:
    """The KV tensors of an engine, and the copier over them."""

    tensors: dict[str, torch.Tensor]
    copier: KVCopier

    def blocks(self, block_ids: tuple[int, ...]) -> list[torch.Tensor]:
        return [tensor[list(block_ids)] for tensor in self.tensors.values()]

    def load(
        self, params: HandoffParams, block_ids: tuple[int, ...], first_block: int = 0, request: str = "r"
    ) -> str | None:
        """Load; the reason why it failed."""
        self.copier.load(BlockCopy(request, params, first_block, block_ids))
        (record,) = self.copier.take_records()
        assert (record.num_bytes > 0) == (record.failure is None)
        return record.failure


NewEngine = Callable[..., Engine]


@pytest.fixture
def transport(tmp_path: Path) -> ShmTransport:
    return ShmTransport(str(tmp_path), lease_s=30.0)


@pytest.fixture
def engine(transport: ShmTransport) -> NewEngine:
    def create(seed: int, packing: str = "amx", num_layers: int = NUM_LAYERS) -> Engine:
        random = torch.Generator().manual_seed(seed)
        tensors = {
            f"layer.{index}": torch.randn(NUM_BLOCKS, 2, 4, 8, generator=random)
            for index in range(num_layers)
        }
        return Engine(tensors, KVCopier(transport, BlockMemory(tensors, packing)))

    return create


@pytest.fixture
def prefill(engine: NewEngine) -> Engine:
    """An engine that has saved a prompt of four blocks."""
    engine_ = engine(1)
    engine_.copier.save(BlockCopy("p", SAVE, 0, SAVED))
    (record,) = engine_.copier.take_records()
    assert record.failure is None
    assert record.num_bytes == NUM_LAYERS * len(SAVED) * 2 * 4 * 8 * 4
    return engine_


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def untouched(engine: Engine, fresh: Engine) -> bool:
    return equal(list(engine.tensors.values()), list(fresh.tensors.values()))


def test_the_prompt_arrives_in_every_layer_and_nothing_else_changes(
    prefill: Engine, engine: NewEngine
) -> None:
    decode, fresh = engine(2), engine(2)
    assert decode.load(LOAD, FREE) is None
    assert equal(decode.blocks(FREE), prefill.blocks(SAVED))
    others = tuple(set(range(NUM_BLOCKS)) - set(FREE))
    assert equal(decode.blocks(others), fresh.blocks(others))
    assert decode.copier.take_invalid_blocks() == set()


def test_a_load_from_a_later_block_fills_only_the_rest(prefill: Engine, engine: NewEngine) -> None:
    decode, fresh = engine(2), engine(2)
    assert decode.load(LOAD, FREE[:2], first_block=2) is None
    assert equal(decode.blocks(FREE[:2]), prefill.blocks(SAVED[2:]))
    assert equal(decode.blocks(FREE[2:]), fresh.blocks(FREE[2:]))


@pytest.mark.parametrize(
    ("wanted", "difference"),
    [
        (replace(LOAD, domain="other"), "domain domain, not other"),
        (replace(LOAD, prefix_digest="other"), "prefix_digest digest, not other"),
        (replace(LOAD, num_tokens=12), "num_tokens 13, not 12"),
    ],
)
def test_kv_of_another_module_or_prompt_is_refused(
    prefill: Engine, engine: NewEngine, wanted: HandoffParams, difference: str
) -> None:
    decode = engine(2)
    assert decode.load(wanted, FREE) == f"the KV of ticket 0abc has {difference}"
    assert decode.copier.take_invalid_blocks() == set(FREE)
    assert decode.copier.take_invalid_blocks() == set()
    assert untouched(decode, engine(2))


@pytest.mark.parametrize("other", [{"packing": "vec"}, {"num_layers": 2}])
def test_kv_of_another_layout_is_refused(
    prefill: Engine, engine: NewEngine, other: dict[str, str | int]
) -> None:
    decode = engine(2, **other)
    assert "has layout torch.float32 (2, 4, 8) x3 amx, not " in (decode.load(LOAD, FREE) or "")
    assert decode.copier.take_invalid_blocks() == set(FREE)
    assert untouched(decode, engine(2, **other))


def test_a_refused_reader_is_closed(prefill: Engine, engine: NewEngine) -> None:
    decode = engine(2)
    open_before = len(os.listdir("/proc/self/fd"))
    assert decode.load(replace(LOAD, domain="other"), FREE)
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_ticket_without_kv_fails_and_marks_the_blocks(engine: NewEngine) -> None:
    decode = engine(2)
    assert "the KV of ticket 0abc is gone" in (decode.load(LOAD, FREE) or "")
    assert decode.copier.take_invalid_blocks() == set(FREE)


def test_a_request_loads_again_after_the_release_until_it_is_forgotten(
    prefill: Engine, engine: NewEngine, transport: ShmTransport
) -> None:
    decode = engine(2)
    open_before = len(os.listdir("/proc/self/fd"))
    assert decode.load(LOAD, FREE) is None
    transport.release("0abc")
    assert decode.load(LOAD, SAVED) is None  # a preempted request has other blocks
    assert equal(decode.blocks(SAVED), prefill.blocks(SAVED))
    decode.copier.forget(["r", "unknown"])
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert "is gone" in (decode.load(LOAD, FREE) or "")


def test_the_kept_reader_belongs_to_one_request(
    prefill: Engine, engine: NewEngine, transport: ShmTransport
) -> None:
    decode = engine(2)
    assert decode.load(LOAD, FREE) is None
    transport.release("0abc")
    assert "is gone" in (decode.load(LOAD, FREE, request="other") or "")
    decode.copier.forget(["r"])


def test_a_truncated_segment_fails_the_load(prefill: Engine, engine: NewEngine, tmp_path: Path) -> None:
    decode = engine(2)
    os.truncate(tmp_path / "0abc.kv", 4096 + 100)
    assert "segment is short" in (decode.load(LOAD, FREE) or "")
    assert decode.copier.take_invalid_blocks() == set(FREE)
    decode.copier.forget(["r"])


def test_a_failed_save_is_a_record_and_not_an_exception(engine: NewEngine) -> None:
    copier = engine(1).copier
    copier.save(BlockCopy("p", replace(SAVE, ticket_id="../escape"), 0, SAVED))
    (record,) = copier.take_records()
    assert record.num_bytes == 0
    assert record.failure == "ticket id '../escape' is not hexadecimal"


def test_a_refused_request_marks_its_blocks_and_gives_the_reason(engine: NewEngine) -> None:
    copier = engine(2).copier
    copier.refuse(BlockCopy("r", LOAD, 0, FREE), "rule 5")
    (record,) = copier.take_records()
    assert (record.ticket_id, record.num_bytes, record.failure) == ("0abc", 0, "rule 5")
    assert copier.take_invalid_blocks() == set(FREE)
    assert copier.take_records() == []
