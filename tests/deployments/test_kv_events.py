"""vLLM's KV events as the router's names: whatever the block size, both name the same prefix alike."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio

from deployments.kv_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    Event,
    EventBatch,
    KvEventReader,
    Translator,
)
from router.prefix_index import BLOCK_TOKENS, PrefixIndex

DOMAIN = "writer"
SIZES = pytest.mark.parametrize("size", [8, 16, 24, 32, 48, 64])
PROMPT = tuple(range(1000, 1000 + 6 * 192))
"""As many tokens as are whole blocks of every size."""


def names(token_ids: Sequence[int]) -> tuple[int, ...]:
    return PrefixIndex(0).hashes(DOMAIN, tuple(token_ids))


def block_hash(token_ids: Sequence[int], end: int) -> bytes:
    """A stand-in for vLLM's: it depends on all tokens up to the end of the block."""
    return repr(token_ids[:end]).encode()


def stored(token_ids: Sequence[int], size: int, start: int = 0, stop: int | None = None) -> BlockStored:
    """What vLLM says when the tokens in [start, stop) of a prompt fill blocks."""
    stop = len(token_ids) // size * size if stop is None else stop
    return BlockStored(
        block_hashes=tuple([block_hash(token_ids, end) for end in range(start + size, stop + 1, size)]),
        parent_block_hash=block_hash(token_ids, start) if start else None,
        token_ids=tuple(token_ids[start:stop]),
        block_size=size,
        medium="GPU",
        group_idx=0,
    )


def removed(token_ids: Sequence[int], *ends: int) -> BlockRemoved:
    return BlockRemoved(tuple([block_hash(token_ids, end) for end in ends]), medium="GPU", group_idx=0)


@dataclass
class Kept:
    """What a router believes."""

    translator: Translator = field(default_factory=lambda: Translator(DOMAIN))
    blocks: set[int] = field(default_factory=set)

    def hear(self, *events: Event) -> set[int]:
        added, gone = self.translator.translate(events)
        self.blocks = self.blocks.difference(gone).union(added)
        return self.blocks


@SIZES
def test_a_prompt_has_the_names_of_the_index_in_their_order(size: int) -> None:
    added, gone = Translator(DOMAIN).translate([stored(PROMPT, size)])
    assert (added, gone) == (names(PROMPT), ())


@SIZES
def test_a_chunked_prefill_gives_the_same_chain(size: int) -> None:
    for step in (192, size):
        kept = Kept()
        for start in range(0, len(PROMPT), step):
            kept.hear(stored(PROMPT, size, start, start + step))
        assert kept.blocks == set(names(PROMPT))


@SIZES
def test_the_partly_filled_block_at_the_end_is_left_to_the_router(size: int) -> None:
    prompt = PROMPT[: 2 * 192 + 5]
    assert Kept().hear(stored(prompt, size)) == set(names(prompt)[:-1])


@SIZES
def test_prompts_that_begin_alike_share_their_beginning(size: int) -> None:
    other = (*PROMPT[:192], *range(192))
    kept = Kept()
    kept.hear(stored(PROMPT, size))
    assert kept.hear(stored(other, size, 192)) == set(names(PROMPT)) | set(names(other))
    ends = range(len(PROMPT), 192, -size)
    assert kept.hear(removed(PROMPT, *ends)) == set(names(other))


@SIZES
def test_a_block_is_gone_with_any_part_of_it(size: int) -> None:
    for end in range(size, 193, size):
        kept = Kept()
        kept.hear(stored(PROMPT[:192], size))
        gone = {
            name
            for number, name in enumerate(names(PROMPT[:192]))
            if number * BLOCK_TOKENS < end and (number + 1) * BLOCK_TOKENS > end - size
        }
        assert kept.hear(removed(PROMPT, end)) == set(names(PROMPT[:192])) - gone


def test_halves_that_many_prompts_share_do_not_pile_up_names() -> None:
    kept, half = Kept(), PROMPT[:16]
    kept.hear(stored(half, 16))
    for number in range(100):
        prompt = (*half, *range(number, number + 16))
        assert kept.hear(stored(prompt, 16, 16)) == {*names(prompt)}
        assert kept.hear(removed(prompt, 32)) == set()
    assert kept.translator.translate([removed(half, 16)]) == ((), ())


def test_a_block_that_is_kept_twice_is_gone_after_its_second_removal() -> None:
    kept, prompt = Kept(), PROMPT[:64]
    kept.hear(stored(prompt, 32), stored(prompt, 32))
    assert kept.hear(removed(prompt, 64, 32)) == set(names(prompt))
    assert kept.hear(removed(prompt, 64)) == set(names(prompt)[:1])


def test_what_comes_and_goes_in_one_step_counts_as_it_ended() -> None:
    prompt = PROMPT[:64]
    again = [stored(prompt, 32), removed(prompt, 64), stored(prompt, 32, 32, 64), removed(prompt, 32)]
    assert Translator(DOMAIN).translate(again) == (names(prompt)[1:], names(prompt)[:1])


def test_a_reset_cache_keeps_nothing() -> None:
    kept = Kept()
    kept.hear(stored(PROMPT, 16))
    assert kept.hear(AllBlocksCleared()) == set()
    assert len(kept.translator) == 0
    assert kept.hear(stored(PROMPT, 16, 192)) == set(), "what follows a block that is gone has no place"


def test_blocks_that_other_prompts_cannot_use_are_ignored() -> None:
    event = stored(PROMPT, 32)
    for other in (
        {"extra_keys": (("other",), *[None] * 35), "lora_name": "adapter"},
        {"extra_keys": (("salt",), *[None] * 35)},
        {"medium": "CPU"},
        {"group_idx": 1},
        {"token_ids": PROMPT[:32]},
    ):
        assert Kept().hear(msgspec.structs.replace(event, **other)) == set()


def test_what_an_adapter_wrote_is_of_a_domain_of_its_own() -> None:
    event = stored(PROMPT, 32)
    keys = tuple(("a1",) for _ in event.block_hashes)
    added = Kept().hear(msgspec.structs.replace(event, lora_name="a1", extra_keys=keys))
    assert added == set(PrefixIndex(0).hashes(f"{DOMAIN}+a1", PROMPT)[: len(added)])
    assert added and not added & Kept().hear(event)


def test_where_the_base_writes_everything_no_block_is_an_adapters() -> None:
    event = stored(PROMPT, 32)
    kept = Kept(Translator(DOMAIN, one_writer=True))
    assert kept.hear(msgspec.structs.replace(event, lora_name="a1")) == Kept().hear(event)


def test_memory_is_bounded() -> None:
    kept = Kept(Translator(DOMAIN, max_blocks=4))
    kept.hear(stored(PROMPT[:192], 32))
    assert len(kept.translator) == 4
    assert kept.blocks == set(names(PROMPT[:192])[2:])


async def test_an_engine_is_heard_over_its_socket() -> None:
    heard: asyncio.Queue[tuple[Sequence[int], Sequence[int]]] = asyncio.Queue()
    reader = KvEventReader(DOMAIN, lambda added, gone: heard.put_nowait((added, gone)))
    reader.start()
    with zmq.asyncio.Context() as context, context.socket(zmq.XPUB) as engine:
        engine.connect(reader.endpoint)
        async with asyncio.timeout(10):
            assert await engine.recv() == b"\1" + reader.topic.encode()
            await engine.send_multipart([b"stranger", (0).to_bytes(8, "big"), b"?"])
            # As vLLM writes it: more fields than we read, and none that has its default.
            event: dict[str, Any] = msgspec.to_builtins(stored(PROMPT, 16)) | {
                "lora_id": None,
                "session_id": "s",
            }
            event["block_hashes"] = list(stored(PROMPT, 16).block_hashes)
            body = msgspec.msgpack.encode([0.5, [event], 0])
            await engine.send_multipart([reader.topic.encode(), (0).to_bytes(8, "big"), body])
            assert await heard.get() == (names(PROMPT), ())
    reader.close()


def test_lost_events_take_everything_with_them_that_is_not_told_again() -> None:
    heard: list[tuple[Sequence[int], Sequence[int]]] = []
    reader = KvEventReader(DOMAIN, lambda added, gone: heard.append((added, gone)))
    first, second = PROMPT[:64], PROMPT[64:96]
    try:
        reader.take(0, msgspec.msgpack.encode(EventBatch(0.0, (stored(first, 32), stored(second, 32)))))
        reader.take(2, msgspec.msgpack.encode(EventBatch(0.0, (stored(second, 32),))))
        assert heard[1] == (names(second), names(first))
        reader.take(3, b"no message")
        reader.take(4, msgspec.msgpack.encode(EventBatch(0.0, ())))
        assert heard[2:] == [((), names(second))]
    finally:
        reader.close()
