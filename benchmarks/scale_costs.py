"""What a router pays for the size of its cluster, measured on production's own code; and what follows.

Costs are of one core of this machine. What a socket and an event loop take around a message is in the costs
of a request (`benchmarks.router`), not here: the messages are cut, decoded and taken in, nothing more.
"""

import math
import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.router_decision import measure
from heliostat.wire import Load, StepTime, TokenDelta
from router.channel.messages import Batch, Frame, KvEvents, Splitter, encode
from router.channel.outbox import BEAT_S
from router.prefix_index import BLOCK_TOKENS
from router.telemetry import TelemetryBoard

USABLE = 0.7
"""Of a core: beyond that, queues in the event loop are longer than what they wait for."""


PROMPT_BLOCKS = 375
"""Of a prompt of 12,000 tokens: what one KV event brings."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one router process, in µs of a core, and bytes.

    A `message` carries a load and no tokens, a `frame` one stream's token in a message that is there
    anyway, a `block` one prompt block in a KV event. `send` is what a message costs the replica.
    """

    decision_us: dict[int, float]
    """Both legs of a request, by replicas in each pool."""
    message_us: float
    frame_us: float
    block_us: float
    send_us: float
    block_bytes: float
    replica_bytes: float
    token_us: float
    """Of a stream, from engine to client, its share of the request included (`benchmarks.router`)."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a cluster of so many prefill and decode replicas does each second."""

    prefill: int
    decode: int
    requests: float
    prompt_tokens: float
    output_tokens: float
    tpot_ms: float
    kv_events: bool = True

    @property
    def streams(self) -> float:
        """Of one decode replica, by Little's law."""
        return self.requests * self.output_tokens * self.tpot_ms / 1000 / self.decode


@dataclass(frozen=True, slots=True)
class Share:
    """Shares of a core in each router. The first three are the same however many routers there are."""

    beats: float
    steps: float
    kv_events: float
    requests: float

    @property
    def fixed(self) -> float:
        return self.beats + self.steps + self.kv_events

    @property
    def total(self) -> float:
        return self.fixed + self.requests

    @property
    def largest(self) -> str:
        names = ("beats", "steps", "kv_events", "requests")
        return max(names, key=lambda name: float(getattr(self, name)))


def share(costs: Costs, traffic: Traffic, routers: int) -> Share:
    """What one of so many routers is busy with.

    A decode replica sends a message per step to each router that has a stream there, which with b streams
    and R routers is one with probability 1 - exp(-b / R); else, and if it prefills, its beat.
    """
    sends = 1.0 - math.exp(-traffic.streams / routers)
    steps_per_s = traffic.decode * sends * 1000 / traffic.tpot_ms
    beats_per_s = (traffic.prefill + traffic.decode * (1.0 - sends)) / BEAT_S
    # A full cache drops a block for each that it takes in.
    blocks_per_s = 2 * traffic.requests * traffic.prompt_tokens / BLOCK_TOKENS * traffic.kv_events
    replicas = max(traffic.prefill, traffic.decode)
    nearest = min(costs.decision_us, key=lambda number: abs(math.log(number / replicas)))
    request_us = costs.decision_us[nearest] + traffic.output_tokens * costs.token_us
    return Share(
        beats=beats_per_s * costs.message_us / 1e6,
        steps=steps_per_s * costs.message_us / 1e6,
        kv_events=blocks_per_s * costs.block_us / 1e6,
        requests=traffic.requests / routers * request_us / 1e6,
    )


def routers_needed(costs: Costs, traffic: Traffic, most: int = 4096) -> int | None:
    """The fewest routers none of which is busier than `USABLE`; None where more would not help."""
    low, high = 1, 1
    while share(costs, traffic, high).total > USABLE:
        low, high = high + 1, high * 2
        if high > most:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if share(costs, traffic, middle).total <= USABLE else (middle + 1, high)
    return high


def measure_costs(replicas: tuple[int, ...], rounds: int, token_us: float, index_blocks: int) -> Costs:
    """Everything but `token_us`, which takes a running router."""
    decisions = {number: measure(number, index_blocks, rounds, decisions=200).both_p50 for number in replicas}
    board = TelemetryBoard()
    batch, full = encode(Batch(_load(0))), encode(Batch(_load(0), tuple(_frame(i) for i in range(16))))
    message = _take_us(board, batch, rounds)
    one_frame = (_take_us(board, full, rounds) - message) / 16
    send = _us(lambda: encode(Batch(_load(0))), rounds)
    return Costs(
        decision_us=decisions,
        message_us=message,
        frame_us=one_frame,
        block_us=_block_us(rounds, index_blocks),
        send_us=send,
        block_bytes=_bytes(lambda board: board.holds("p", [hash((i,)) for i in range(50_000)])) / 50_000,
        replica_bytes=_bytes(_observe_many) / 2000,
        token_us=token_us,
    )


def _take_us(board: TelemetryBoard, data: bytes, rounds: int) -> float:
    splitter = Splitter()

    def take() -> None:
        for message in splitter.feed(data):
            assert isinstance(message, Batch)
            board.observe(message.load)

    return _us(take, rounds)


def _block_us(rounds: int, index_blocks: int) -> float:
    """Per block that comes or goes, while the index is large and the prompts are new."""
    draw, splitter = random.Random(0), Splitter()
    board = TelemetryBoard(prefix_blocks=index_blocks)
    board.holds("prefill#0", [draw.getrandbits(60) for _ in range(index_blocks // 2)])
    times = []
    for _ in range(rounds):
        prompts = [tuple(draw.getrandbits(60) for _ in range(PROMPT_BLOCKS)) for _ in range(100)]
        events = [encode(KvEvents(added=prompt)) for prompt in prompts]
        events += [encode(KvEvents(removed=prompt)) for prompt in prompts]
        began_s = time.perf_counter()
        for data in events:
            for message in splitter.feed(data):
                assert isinstance(message, KvEvents)
                board.kv_changed("prefill#1", message.added, message.removed)
        times.append((time.perf_counter() - began_s) / len(events) / PROMPT_BLOCKS * 1e6)
    return median(times)


def _us(call: Callable[[], object], rounds: int, repeat: int = 5000) -> float:
    times = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        for _ in range(repeat):
            call()
        times.append((time.perf_counter() - began_s) / repeat * 1e6)
    return median(times)


def _bytes(fill: Callable[[TelemetryBoard], None]) -> float:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        board = TelemetryBoard()
        fill(board)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


def _observe_many(board: TelemetryBoard) -> None:
    for number in range(2000):
        board.observe(_load(number))


def _load(number: int) -> Load:
    step = StepTime(6.0, 0.01, 5.5e-5)
    return Load(f"decode-shared#{number}", 14, 0, 0, 0.5, 7, 256, 180_000, 398_000, 17.0, step)


def _frame(stream: int) -> Frame:
    return Frame(stream, 100, (TokenDelta(0, (1234,)),))
