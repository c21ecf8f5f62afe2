"""Who brought a cached block, also when several models ask for it at the same time, by way of any router."""

from collections.abc import AsyncGenerator

from deployments.bringers import Bringers, noted
from heliostat.wire import DecodeRequest, Load, Ticket, TokenDelta, TokenFrame

PROMPT = tuple(range(100))
LOAD = Load("d0", 0, 0, 0, 0.0, 1)
TICKET = Ticket("t", "shm", "there", "kv", "p", 99, 7, 64, "p0", 0.0)


def asked(brought: Bringers, model: str, cached_tokens: int, domain: str = "kv") -> int:
    """One request from its arrival to its answer."""
    return brought.claim(model, domain, PROMPT).found(cached_tokens)


def test_whoever_computes_it_has_brought_it() -> None:
    brought = Bringers()
    assert asked(brought, "math", 0) == 0
    assert asked(brought, "code", 96) == 96
    assert asked(brought, "math", 96) == 0, "it is its own"
    assert asked(brought, "chat", 100) == 100, "its end too, of the very same prompt"


def test_also_when_it_answers_last() -> None:
    brought = Bringers()
    math, code = (brought.claim(model, "kv", PROMPT) for model in ("math", "code"))
    assert code.found(96) == 96
    assert math.found(0) == 0
    assert asked(brought, "math", 96) == 0


def test_of_several_at_once_the_one_that_computes_and_not_the_first_to_come() -> None:
    brought = Bringers()
    math, code = (brought.claim(model, "kv", PROMPT) for model in ("math", "code"))
    assert code.found(0) == 0
    assert math.found(96) == 96
    assert asked(brought, "code", 100) == 4, "of its end, which `math` computed last"


def test_a_block_that_came_otherwise_is_nobodys() -> None:
    """It was forgotten here, and may well have been this model's."""
    brought = Bringers()
    assert asked(brought, "math", 100) == 0
    assert asked(brought, "code", 100) == 0
    assert len(brought) == 0


def test_what_a_request_that_failed_left_behind_was_brought_by_its_model() -> None:
    brought = Bringers()
    brought.claim("math", "kv", PROMPT)
    assert asked(brought, "code", 64) == 64


def test_whoever_computes_it_again_has_brought_it_from_then_on() -> None:
    brought = Bringers()
    asked(brought, "math", 0)
    assert asked(brought, "code", 32) == 32
    assert asked(brought, "code", 100) == 32
    assert asked(brought, "math", 100) == 68


def test_a_part_of_a_block_counts_its_own_tokens() -> None:
    brought = Bringers()
    asked(brought, "math", 0)
    assert asked(brought, "code", 40) == 40


def test_domains_are_told_apart() -> None:
    """Two adapters of one prefill pool: no block of the one is a block of the other (rule 3)."""
    brought = Bringers()
    asked(brought, "math", 0, "kv+a")
    asked(brought, "code", 0, "kv+b")
    assert asked(brought, "code", 96, "kv+b") == 0
    assert asked(brought, "code", 96, "kv+a") == 96


def test_its_memory_is_bounded_and_keeps_what_is_used() -> None:
    brought, system = Bringers(max_blocks=8), tuple(range(64))
    brought.claim("math", "kv", system).found(0)
    for question in range(100):
        prompt = (*system, *range(1000 * question, 1000 * question + 64))
        assert brought.claim("code", "kv", prompt).found(64) == 64
        assert len(brought) <= 8


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

    ticket = TICKET if cached_tokens is None else None
    request = DecodeRequest("1", model, prompt, ticket, b"", generated)
    return [frame.cross_model_tokens async for frame in noted(brought, "kv", request, frames())]


async def test_an_icarus_replica_has_the_prompt_and_the_answer_from_the_model_that_asked() -> None:
    brought, answer = Bringers(), tuple(range(500, 530))
    assert await decode(brought, "math", PROMPT, (answer,), 0) == [0] * 30
    later = (*PROMPT, *answer, 1, 2)
    # 129 tokens have their KV: all but the last one.
    assert (await decode(brought, "code", later, ((9, 9),), 128))[0] == 128
    assert (await decode(brought, "math", later, ((9, 9),), 128))[0] == 0


async def test_as_with_a_ticket_and_with_tokens_that_a_lost_replica_generated() -> None:
    brought, answer = Bringers(), tuple(range(500, 530))
    assert await decode(brought, "math", PROMPT, (answer[10:],), None, generated=answer[:10]) == [0] * 20
    later = (*PROMPT, *answer, 1, 2)
    assert (await decode(brought, "code", later, ((9, 9),), 128))[0] == 128


async def test_each_of_n_answers_can_be_gone_on_with() -> None:
    brought, answers = Bringers(), (tuple(range(500, 530)), tuple(range(600, 630)))
    await decode(brought, "math", PROMPT, answers, 0)
    for answer in answers:
        assert (await decode(brought, "code", (*PROMPT, *answer), ((9, 9),), 128))[0] == 128


async def test_a_client_that_leaves_leaves_behind_what_was_written() -> None:
    brought = Bringers()

    async def frames() -> AsyncGenerator[TokenFrame, None]:
        while True:
            yield TokenFrame((TokenDelta(0, (7,)),), False, LOAD, None, 0)

    left = noted(brought, "kv", DecodeRequest("1", "math", PROMPT, None, b""), frames())
    await anext(left)
    await left.aclose()
    assert asked(brought, "code", 96) == 96
