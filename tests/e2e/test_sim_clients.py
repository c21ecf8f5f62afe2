"""Many clients at once, over engines that compute nothing: exact, whole, and in nobody's way."""

import asyncio
import json
import random
import socket

import h11
import httpx
import pytest

from heliostat.wire import Role

pytestmark = pytest.mark.sim

MODELS = ("home", "mirror")
CANCELS = 1000
AT_ONCE = 64


def prompt(seed: object, length: int = 40) -> list[int]:
    rng = random.Random(f"client-{seed}")
    return [rng.randint(60, 90) for _ in range(length)]


async def check(sim, model: str, ids: list[int], num_tokens: int) -> None:
    stream = await sim.open(model=model, prompt=ids, max_tokens=num_tokens)
    await stream.read()
    assert stream.tokens == {0: sim.expected(model, ids, num_tokens)}
    assert stream.done and stream.finished == {0} and not stream.error


async def nothing_left(sim) -> bool:
    """No request runs or waits anywhere."""
    now = [replica for pool in (await sim.status()).pools for replica in pool.replicas]
    return all(r.running + r.waiting + r.queued_prompt_tokens == 0 and r.kv_use == 0 for r in now)


async def test_32_streams_over_both_models(sim) -> None:
    await asyncio.gather(*(check(sim, MODELS[n % 2], prompt(n), 100) for n in range(32)))


async def test_several_prompts_and_several_sequences(sim) -> None:
    prompts = [prompt(n, length=10 + n) for n in range(3)]
    body = {"model": "home", "prompt": prompts, "n": 2, "temperature": 0.5, "max_tokens": 20}
    expected = {2 * i + n: sim.expected("home", ids, 20, n) for i, ids in enumerate(prompts) for n in (0, 1)}
    answer = await sim.post(**body)
    assert {c["index"]: c["token_ids"] for c in answer.json()["choices"]} == expected
    stream = await (await sim.open(**body)).read()
    assert stream.tokens == expected
    assert stream.done and stream.finished == expected.keys()


async def test_1000_requests_whose_clients_leave(sim) -> None:
    rng = random.Random(4)
    gate = asyncio.Semaphore(AT_ONCE)

    async def cancel_one(number: int) -> None:
        body = {
            "model": rng.choice(MODELS),
            "prompt": prompt(number, rng.randint(1, 500)),
            "max_tokens": 1500,
            "stream": rng.random() < 0.5,
        }
        async with gate:
            request = asyncio.create_task(sim.post(**body))
            _, pending = await asyncio.wait([request], timeout=rng.choice([0.001, 0.01, 0.03, 0.1, 0.3]))
            assert pending, "so many tokens cannot be out yet"
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request

    await asyncio.gather(*(cancel_one(number) for number in range(CANCELS)))
    await sim.until(lambda: nothing_left(sim))
    # Slots are free again: as many as the pool runs at a time, all at once.
    await asyncio.gather(*(check(sim, MODELS[n % 2], prompt(n), 20) for n in range(64)))


async def test_a_client_that_does_not_read_holds_up_nobody(sim) -> None:
    """The engine is done with it while its answer waits, and it gets everything when it reads at last."""
    num_tokens, num_sequences, ids = 300, 16, prompt("slow")
    body = {
        "model": "home",
        "prompt": ids,
        "max_tokens": num_tokens,
        "n": num_sequences,
        "temperature": 0.5,
        "stream": True,
        "return_token_ids": True,
    }
    url, before = httpx.URL(sim.cluster.url), await handoffs(sim)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, (url.host, url.port))
        content = json.dumps(body)
        await loop.sock_sendall(
            slow,
            f"POST /v1/completions HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n{content}".encode(),
        )

        async def taken() -> bool:
            return await handoffs(sim) > before

        await sim.until(taken)
        await asyncio.gather(*(check(sim, MODELS[n % 2], prompt(n), 20) for n in range(16)))
        await sim.until(lambda: nothing_left(sim))
        answer = bytearray()
        while data := await loop.sock_recv(slow, 65536):
            answer += data
    text = body_of(bytes(answer))
    tokens: dict[int, list[int]] = {}
    for line in text.splitlines():
        if line.startswith(b"data: {"):
            for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                tokens.setdefault(choice["index"], []).extend(choice["token_ids"] or [])
    assert tokens == {n: sim.expected("home", ids, num_tokens, n) for n in range(num_sequences)}
    assert b"data: [DONE]" in text


async def handoffs(sim) -> int:
    """How many have ended in the pool `base` so far."""
    replicas = await sim.replicas(Role.DECODE, "base")
    return sum(figures.admitted for replica in replicas for figures in replica.handoffs)


def body_of(answer: bytes) -> bytes:
    """Of a raw HTTP answer. HAProxy sends on what it has of a chunk, so that an event may lie in two."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="POST", target="/", headers=[("host", "any"), ("content-length", "0")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(answer)
    body = b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA, "the answer is not whole"
        if isinstance(event, h11.Data):
            body += event.data
    return body
