"""Who brought a cached block, also when several models ask for it at the same time, by way of any router."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack

import pytest

from deployments.bringers import Bringers, noted
from heliostat.wire import DecodeRequest, Load, Ticket, TokenDelta, TokenFrame
from router.prefix_index import PrefixIndex

PROMPT = tuple(range(100))
BLOCKS = PrefixIndex(0).hashes("kv", PROMPT)
LOAD = Load("d0", 0, 0, 0, 0.0, 1)
TICKET = Ticket("t", "shm", "there", "kv", "p", 99, 4, 64, "p0", 0.0)


def asked(
    brought: Bringers, model: str, cached_tokens: int, domain: str = "kv", prompt: tuple[int, ...] = PROMPT
) -> int:
    """One request from its arrival to its answer."""
    with brought.claim(model, domain, prompt) as claim:
        return claim.found(cached_tokens)


def test_whoever_computes_it_has_brought_it() -> None:
    brought = Bringers()
    assert asked(brought, "math", 0) == 0
    assert asked(brought, "code", 96) == 96
    assert asked(brought, "math", 96) == 0, "it is its own"
    assert asked(brought, "chat", 100) == 100, "its end too, of the very same prompt"


def test_also_when_it_answers_last() -> None:
    brought = Bringers()
    with brought.claim("math", "kv", PROMPT) as math, brought.claim("code", "kv", PROMPT) as code:
        assert code.found(96) == 96
        assert math.found(0) == 0
    assert asked(brought, "math", 96) == 0


def test_also_when_its_model_asks_once_more_meanwhile() -> None:
    brought = Bringers()
    with (
        brought.claim("math", "kv", PROMPT) as math,
        brought.claim("math", "kv", PROMPT) as again,
        brought.claim("code", "kv", PROMPT) as code,
    ):
        assert again.found(96) == 0
        assert code.found(96) == 96
        assert math.found(0) == 0


def test_of_several_at_once_the_one_that_computes_and_not_the_first_to_come() -> None:
    brought = Bringers()
    with brought.claim("math", "kv", PROMPT) as math, brought.claim("code", "kv", PROMPT) as code:
        assert code.found(0) == 0
        assert math.found(96) == 96
    assert asked(brought, "code", 100) == 4, "of its end, which `math` computed last"


def test_a_block_that_came_otherwise_is_nobodys() -> None:
    """It was forgotten here, and may well have been this model's."""
    brought = Bringers()
    assert asked(brought, "math", 100) == 0
    assert asked(brought, "code", 100) == 0


def test_nor_is_it_anybodys_while_others_wait() -> None:
    brought = Bringers()
    with brought.claim("math", "kv", PROMPT) as math, brought.claim("math", "kv", PROMPT) as again:
        assert math.found(96) == 0
        with brought.claim("chat", "kv", PROMPT) as chat:
            assert again.found(96) == 0
            assert chat.found(96) == 0


def test_what_failed_or_was_left_has_brought_nothing() -> None:
    brought = Bringers()
    with pytest.raises(TimeoutError), brought.claim("math", "kv", PROMPT):
        raise TimeoutError
    with brought.claim("chat", "kv", PROMPT) as chat:
        assert asked(brought, "math", 64) == 0, "it may have left it behind itself"
        assert chat.found(64) == 0
    assert asked(brought, "code", 96) == 32, "what `chat` computed last"


def test_a_last_block_that_is_computed_for_its_last_token_stays_whose_it_was() -> None:
    brought, whole = Bringers(), tuple(range(128))
    asked(brought, "math", 0, prompt=whole)
    assert asked(brought, "code", 96, prompt=whole) == 96
    assert asked(brought, "math", 128, prompt=(*whole, 1, 2)) == 0
    assert asked(brought, "code", 128, prompt=(*whole, 1, 2)) == 128


def test_whoever_computes_it_again_has_brought_it_from_then_on() -> None:
    brought = Bringers()
    asked(brought, "math", 0)
    assert asked(brought, "code", 32) == 32
    assert asked(brought, "code", 100) == 32
    assert asked(brought, "math", 100) == 68


def test_a_part_of_a_block_counts_its_own_tokens() -> None:
    """The engine's blocks may be shorter."""
    brought = Bringers()
    asked(brought, "math", 0)
    assert asked(brought, "code", 48) == 48


def test_domains_are_told_apart() -> None:
    """Two adapters of one prefill pool: no block of the one is a block of the other (rule 3)."""
    brought = Bringers()
    asked(brought, "math", 0, "kv+a")
    asked(brought, "code", 0, "kv+b")
    assert asked(brought, "code", 96, "kv+b") == 0
    assert asked(brought, "code", 96, "kv+a") == 96


def test_what_the_engine_dropped_is_nobodys() -> None:
    brought = Bringers()
    asked(brought, "math", 0)
    brought.removed(BLOCKS[1:])
    assert len(brought) == 1
    assert asked(brought, "code", 96) == 32


def test_its_memory_is_bounded_and_keeps_what_is_used() -> None:
    brought, system = Bringers(max_blocks=8), tuple(range(64))
    asked(brought, "math", 0, prompt=system)
    for question in range(100):
        prompt = (*system, *range(1000 * question, 1000 * question + 64))
        assert asked(brought, "code", 64, prompt=prompt) == 64
        assert len(brought) <= 8
    with ExitStack() as stack:
        prompts = [tuple(range(start, start + 32)) for start in range(1000, 1100)]
        claims = [stack.enter_context(brought.claim("code", "kv", each)) for each in prompts]
        assert len(brought) <= 2 * 8, "of those that compute, too"
        for claim in claims:
            claim.found(0)
    assert len(brought) == 8


def test_who_has_computed_is_expected_no_longer() -> None:
    brought = Bringers()
    with brought.claim("math", "kv", PROMPT):
        asked(brought, "code", 0)
        assert len(brought) == len(BLOCKS)


async def decode(
    brought: Bringers,
    model: str,
    prompt: tuple[int, ...],
    answers: tuple[tuple[int, ...], ...],
    cached_tokens: int | None,
    generated: tuple[int, ...] = (),
) -> list[int]:
    """A request to an ICaRus replica, with a ticket where no count of cached tokens is given; what its frames
    say that other models had brought."""

    async def frames() -> AsyncGenerator[TokenFrame, None]:
        for step, tokens in enumerate(zip(*answers, strict=True)):
            deltas = tuple(TokenDelta(index, (token,)) for index, token in enumerate(tokens))
            yield TokenFrame(deltas, False, LOAD, None, None if step else cached_tokens)

    request = decode_request(model, prompt, cached_tokens is None, generated)
    return [frame.cross_model_tokens async for frame in noted(brought, "kv", request, frames())]


def decode_request(
    model: str, prompt: tuple[int, ...] = PROMPT, ticket: bool = False, generated: tuple[int, ...] = ()
) -> DecodeRequest:
    return DecodeRequest("1", model, prompt, TICKET if ticket else None, b"", generated)


async def found(brought: Bringers, model: str, prompt: tuple[int, ...], cached_tokens: int) -> int:
    """What a request without a ticket is told in its first frame."""
    return (await decode(brought, model, prompt, ((9,),), cached_tokens))[0]


async def test_an_icarus_replica_has_the_prompt_and_the_answer_from_the_model_that_asked() -> None:
    brought, answer = Bringers(), tuple(range(500, 530))
    assert await decode(brought, "math", PROMPT, (answer,), 0) == [0] * 30
    later = (*PROMPT, *answer, 1, 2)
    # 129 tokens have their KV: all but the last one.
    assert await found(brought, "code", later, 128) == 128
    assert await found(brought, "math", later, 128) == 0


async def test_the_last_tokens_kv_is_not_there() -> None:
    """Whoever asks on about 100 + 28 tokens finds 127 of them, and computes the last block."""
    brought, answer = Bringers(), tuple(range(500, 528))
    await decode(brought, "math", PROMPT, (answer,), 0)
    whole = (*PROMPT, *answer)
    assert await found(brought, "code", whole, 128) == 96
    assert await found(brought, "chat", whole, 128) == 96, "that block came otherwise"


async def test_as_with_a_ticket_and_with_tokens_that_a_lost_replica_generated() -> None:
    brought, answer = Bringers(), tuple(range(500, 530))
    assert await decode(brought, "math", PROMPT, (answer[10:],), None, generated=answer[:10]) == [0] * 20
    assert await found(brought, "code", (*PROMPT, *answer, 1, 2), 128) == 128


async def test_each_of_n_answers_can_be_gone_on_with() -> None:
    brought, answers = Bringers(), (tuple(range(500, 530)), tuple(range(600, 630)))
    await decode(brought, "math", PROMPT, answers, 0)
    for answer in answers:
        assert await found(brought, "code", (*PROMPT, *answer), 128) == 128


async def endless(cached_tokens: int | None) -> AsyncGenerator[TokenFrame, None]:
    while True:
        yield TokenFrame((TokenDelta(0, (7,)),), False, LOAD, None, cached_tokens)
        cached_tokens = None


async def test_a_client_that_leaves_leaves_behind_what_was_written() -> None:
    brought = Bringers()
    left = noted(brought, "kv", decode_request("math"), endless(0))
    await anext(left)
    await left.aclose()
    assert asked(brought, "code", 96) == 96


async def test_a_prompt_with_a_ticket_is_its_models_from_the_first_token_on() -> None:
    brought = Bringers()
    streams = noted(brought, "kv", decode_request("math", ticket=True), endless(None))
    await anext(streams)
    assert await found(brought, "math", PROMPT, 96) == 0
    assert await found(brought, "code", PROMPT, 96) == 96
    await streams.aclose()
    assert await found(brought, "math", PROMPT, 96) == 0


async def test_a_handoff_that_failed_has_brought_nothing() -> None:
    brought = Bringers()

    async def fails() -> AsyncGenerator[TokenFrame, None]:
        raise TimeoutError
        yield

    with pytest.raises(TimeoutError):
        await anext(noted(brought, "kv", decode_request("math", ticket=True), fails()))
    await decode(brought, "code", PROMPT, ((5, 6),), None)
    assert await found(brought, "code", PROMPT, 96) == 0
    assert await found(brought, "math", PROMPT, 96) == 96


async def test_a_ticket_brings_back_what_the_engine_had_dropped() -> None:
    brought = Bringers()
    await decode(brought, "code", PROMPT, ((5, 6),), 0)
    brought.removed(BLOCKS)
    await decode(brought, "math", PROMPT, ((5, 6),), None)
    assert await found(brought, "math", PROMPT, 96) == 0
    assert await found(brought, "code", PROMPT, 96) == 96
