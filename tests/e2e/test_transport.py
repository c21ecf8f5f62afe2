"""Whatever the transport: every token is exact, and KV moves while the prefill still computes."""

import asyncio
import random

import pytest
from openai import AsyncOpenAI

from heliostat.status import HandoffFigures
from heliostat.wire import Role

pytestmark = pytest.mark.transport

BLOCK = 32
FIRST_LETTER, LAST_LETTER = 60, 90
MODELS = ("base", "spell")


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    rng = random.Random(f"{length}-{seed}")
    return tuple(rng.randint(FIRST_LETTER, LAST_LETTER) for _ in range(length))


async def generate(client: AsyncOpenAI, model: str, ids: tuple[int, ...], max_tokens: int = 24) -> list[int]:
    answer = await client.completions.create(
        model=model,
        prompt=list(ids),
        max_tokens=max_tokens,
        temperature=0,
        extra_body={"return_token_ids": True, "ignore_eos": True},
    )
    return answer.choices[0].token_ids


def figures(cluster, role: Role, pool: str = "base") -> list[HandoffFigures]:
    return [
        figures
        for status in cluster.status().pools
        if (status.role, status.name) == (role, pool)
        for replica in status.replicas
        for figures in replica.handoffs
    ]


def test_the_cluster_runs_over_the_transport_that_the_spec_names(transport_cluster) -> None:
    assert transport_cluster.spec.transfer.transport in transport_cluster.name


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 65, 500, 1000])
async def test_every_token_is_exact_alone(transport_cluster, client: AsyncOpenAI, length: int) -> None:
    """The prefill takes 64 tokens a step, so that the longer prompts leave in chunks."""
    for model in MODELS:
        ids = prompt(length)
        assert await generate(client, model, ids) == transport_cluster.reference(model, ids, 24)


async def test_every_token_is_exact_sixteen_at_once(transport_cluster, client: AsyncOpenAI) -> None:
    lengths = (1, 2, 17, 31, 32, 33, 63, 65, 100, 200, 333, 700)
    work = [(model, prompt(length, 1)) for model in MODELS for length in lengths]
    random.Random(11).shuffle(work)
    gate = asyncio.Semaphore(16)

    async def one(model: str, ids: tuple[int, ...]) -> list[int]:
        async with gate:
            return await generate(client, model, ids)

    answers = await asyncio.gather(*(one(model, ids) for model, ids in work))
    expected = [transport_cluster.reference(model, ids, 24) for model, ids in work]
    assert [len(ids) for (_, ids), a, e in zip(work, answers, expected, strict=True) if a != e] == []


async def test_a_burst_is_spread_over_the_replicas_of_a_pool(transport_cluster, client: AsyncOpenAI) -> None:
    """The policies see what this router has in flight; otherwise the first replica would get it all."""

    def by_replica(role: Role) -> dict[str, int]:
        pools = [p for p in transport_cluster.status().pools if (p.role, p.name) == (role, "base")]
        return {r.name: r.copies for p in pools for r in p.replicas}

    before = {role: by_replica(role) for role in Role}
    await asyncio.gather(*(generate(client, "base", prompt(300, seed)) for seed in range(20, 36)))
    for role in Role:
        shares = [count - before[role].get(name, 0) for name, count in by_replica(role).items()]
        assert len(shares) == 2
        assert min(shares) >= 3, (role, shares)


async def test_preempted_requests_go_on_exactly(transport_cluster, client: AsyncOpenAI) -> None:
    """Rule 5: 24 requests of 130 + 150 tokens do not fit into twice 70 blocks.

    The router keeps them apart once it knows how long the answers are: short ones first mislead it.
    """
    await asyncio.gather(*(generate(client, "base", prompt(40, 1), 1) for _ in range(40)))
    work = [prompt(130, seed) for seed in range(24)]
    before = sum(f.copies for f in figures(transport_cluster, Role.DECODE))
    answers = await asyncio.gather(*(generate(client, "base", ids, 150) for ids in work))
    assert answers == [transport_cluster.reference("base", ids, 150) for ids in work]
    after = sum(f.copies for f in figures(transport_cluster, Role.DECODE))
    assert after - before > len(work), "nothing was preempted: this test shows nothing"


async def test_three_readers_of_one_prefill(transport_cluster, client: AsyncOpenAI) -> None:
    """PrefillShare: an agent asks several specialists the same; the prompt is computed and saved once."""
    ids = prompt(300, 5)
    saved = sum(f.copies for f in figures(transport_cluster, Role.PREFILL))
    committed = sum(f.committed for f in figures(transport_cluster, Role.PREFILL))
    for model in ("base", "spell", "base"):
        assert await generate(client, model, ids) == transport_cluster.reference(model, ids, 24)
    now = figures(transport_cluster, Role.PREFILL)
    assert sum(f.copies for f in now) - saved == 1
    assert sum(f.committed for f in now) - committed == 3


async def test_three_readers_at_once(transport_cluster, client: AsyncOpenAI) -> None:
    ids = prompt(400, 6)
    models = ("base", "spell", "base")
    answers = await asyncio.gather(*(generate(client, model, ids) for model in models))
    assert answers == [transport_cluster.reference(model, ids, 24) for model in models]


async def test_sequences_of_one_request_read_one_ticket(transport_cluster, client: AsyncOpenAI) -> None:
    ids = prompt(100, 7)
    answer = await client.completions.create(
        model="base",
        prompt=list(ids),
        n=3,
        max_tokens=24,
        temperature=1,  # greedy with n > 1 is refused; one candidate is the same thing
        extra_body={"top_k": 1, "return_token_ids": True, "ignore_eos": True},
    )
    assert [c.token_ids for c in answer.choices] == [transport_cluster.reference("base", ids, 24)] * 3


async def test_chunks_are_saved_while_the_prefill_still_computes(
    transport_cluster, client: AsyncOpenAI
) -> None:
    def save_ms() -> tuple[float, float]:
        saves = figures(transport_cluster, Role.PREFILL)
        return sum(f.ms for f in saves), sum(f.hidden_ms for f in saves)

    ms, hidden_ms = save_ms()
    await generate(client, "base", prompt(1500, 8))
    more_ms, more_hidden_ms = save_ms()
    assert 0 < more_hidden_ms - hidden_ms <= more_ms - ms


async def asked(client: AsyncOpenAI, model: str, ids: tuple[int, ...], session: str) -> tuple[str, int, int]:
    """Where it was prefilled, how many of its tokens were there, and how many another model had brought."""
    headers = (
        await client.completions.with_raw_response.create(
            model=model, prompt=list(ids), max_tokens=2, extra_headers={"x-heliostat-session": session}
        )
    ).headers
    counts = (int(headers[f"x-heliostat-{name}-tokens"]) for name in ("cached", "cross-model"))
    return headers["x-heliostat-prefill"], *counts


async def test_a_context_is_computed_on_one_of_two_replicas(transport_cluster, client: AsyncOpenAI) -> None:
    """What is saved of all three has to fit into the spec's small memory."""
    session, context = f"one {transport_cluster.name}", prompt(160, 7)
    answers = await asyncio.gather(
        *(
            asked(client, model, context + prompt(10, number), session)
            for number, model in enumerate(("base", "spell", "spell"))
        )
    )
    assert len({replica for replica, *_ in answers}) == 1
    assert sorted(cached for _, cached, _ in answers) == [0, 160, 160]


async def test_what_is_cached_is_told_before_a_chunked_prefill_is_done(
    transport_cluster, client: AsyncOpenAI
) -> None:
    """With an early choice, the first token may be out before the prefill's answer is."""
    session, beginning = f"early {transport_cluster.name}", prompt(320, 8)
    assert (await asked(client, "base", beginning + prompt(10, 1), session))[1:] == (0, 0)
    assert (await asked(client, "spell", beginning + prompt(150, 2), session))[1:] == (320, 320)
    assert (await asked(client, "base", beginning + prompt(150, 3), session))[1:] == (320, 0)


async def test_the_ledger_closes(transport_cluster, client: AsyncOpenAI) -> None:
    """Every ticket that was committed is over, once nothing runs: admitted, released or expired."""
    await generate(client, "base", prompt(50, 9))
    saves = figures(transport_cluster, Role.PREFILL)
    async with asyncio.timeout(30):
        while sum(f.open for f in saves):
            saves = await asyncio.to_thread(figures, transport_cluster, Role.PREFILL)
    assert sum(f.committed for f in saves) == sum(f.released + f.expired for f in saves)
    assert all(f.transport == transport_cluster.spec.transfer.transport for f in saves)
    loads = figures(transport_cluster, Role.DECODE) + figures(transport_cluster, Role.DECODE, "spell")
    assert sum(f.admitted for f in saves) == sum(f.admitted for f in loads)
    failures = {kind for f in saves + loads for kind in f.failures}
    assert failures <= {"no_space", "expired"}, "saves that waited for room, requests that waited for a slot"
