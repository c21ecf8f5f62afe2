"""What one routing decision costs: versions, hashing the prompt, the prefix index, the policy, and booking.

    python -m benchmarks.router_decision

Both legs as `deployments.request_router` decides them, over pools of N replicas that report while requests
come and go, with a full prefix index. Half of the prompts begin with a prefix that others share.
"""

import random
import time
from collections import deque
from dataclasses import dataclass, replace
from statistics import median

from cluster.percentiles import percentile
from heliostat.wire import DecodeRequest, Load, PrefillRequest, Role, StepTime, Version
from router.choice import Chooser
from router.pairing import Side, VersionPairing
from router.policy import DEFAULTS, POLICIES
from router.telemetry import TelemetryBoard

PROMPT_TOKENS = 2048
SHARED_TOKENS = 1024
SHARED_PREFIXES = 16
VOCABULARY = 150_000
DECISIONS = 500
"""Requests in one round."""

NOBODY: frozenset[str] = frozenset()
OPEN_PER_REPLICA = 4
READINGS_PER_DECISION = 4


@dataclass(frozen=True, slots=True)
class DecisionTimes:
    """Microseconds, medians over rounds of each round's p50 and p99; `both` is a request's two legs."""

    replicas: int
    index_blocks: int
    prefill_p50: float
    prefill_p99: float
    decode_p50: float
    decode_p99: float
    both_p50: float
    both_p99: float


class _Traffic:
    """Two pools under a steady load."""

    def __init__(self, replicas: int, index_blocks: int) -> None:
        self._draw = random.Random(0)
        self._board = TelemetryBoard(prefix_blocks=index_blocks)
        self._prefill = tuple(f"prefill-math#{i}" for i in range(replicas))
        self._decode = tuple(f"decode-shared#{i}" for i in range(replicas))
        self._choosers = {
            role: Chooser(self._board, POLICIES[name].make(), self._draw.random, tpot_target_ms=50.0)
            for role, name in DEFAULTS.items()
        }
        version = Version("v", "weights", "source", "d", partners=("source",))
        for name in self._prefill + self._decode:
            self._board.roster.observe(name, version)
        sides = Side(lambda: self._prefill, "source"), Side(lambda: self._decode, "source")
        self._pairing = VersionPairing(self._board.roster, *sides, self._draw.random)
        self._version = version
        self._shared = [self._tokens(SHARED_TOKENS) for _ in range(SHARED_PREFIXES)]
        self._open: deque[str] = deque()
        self._max_open = 2 * OPEN_PER_REPLICA * replicas
        self._requests = 0
        for name in self._prefill + self._decode:
            self._observe(name)
        while len(self._board.index) < index_blocks:
            blocks = [self._draw.getrandbits(60) for _ in range(64)]
            self._board.holds(self._draw.choice(self._prefill), blocks)
        for prefix in self._shared:  # everyone holds the beginning that all share
            hashes = self._board.hashes(self._prefill, prefix)
            for name in self._prefill:
                self._board.holds(name, hashes)

    def decide(self) -> tuple[float, float]:
        """Seconds that a request's two decisions took."""
        tokens = self._tokens(PROMPT_TOKENS)
        if self._requests % 2:
            tokens = self._draw.choice(self._shared) + tokens[SHARED_TOKENS:]
        request_id = str(self._requests)
        self._requests += 1
        prefill = PrefillRequest(request_id, "math", tokens[:-1])
        decode = DecodeRequest(
            request_id + "-d", "math", tokens, None, b"", max_tokens=512, expected_tokens=200
        )
        spent = []
        for role, names, leg in (
            (Role.PREFILL, self._prefill, prefill),
            (Role.DECODE, self._decode, decode),
        ):
            chooser, call_id = self._choosers[role], leg.request_id
            start = time.perf_counter()
            if role is Role.PREFILL:
                versions = self._pairing.writers(None, NOBODY).versions
            else:
                versions = self._pairing.readers(self._version, None).versions
            paired = time.perf_counter()
            leg = replace(leg, versions=versions)  # in production it is made with them
            ready = time.perf_counter()
            best = chooser.choose(names, call_id, leg)[0]
            chooser.sent(names[best], call_id, leg)
            spent.append(paired - start + time.perf_counter() - ready)
            self._open.append(call_id)
        while len(self._open) > self._max_open:
            self._board.ended(self._open.popleft())
        for _ in range(READINGS_PER_DECISION):
            self._observe(self._draw.choice(self._draw.choice((self._prefill, self._decode))))
        return spent[0], spent[1]

    def _observe(self, name: str) -> None:
        draw = self._draw
        load = Load(
            name,
            running=draw.randrange(64),
            waiting=0,
            queued_prompt_tokens=draw.randrange(8000),
            kv_use=draw.random() * 0.8,
            sequence=self._requests,
            max_running=256,
            context_tokens=draw.randrange(60_000),
            kv_tokens=200_000,
            tpot_ms=20.0,
            step=StepTime(10.0 + draw.random(), 0.2, 0.0001),
            prefill_tokens_per_s=8000.0 + draw.random(),
            domain="d",
        )
        self._board.observe(load)

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self._draw.randrange(VOCABULARY) for _ in range(count))


def measure(replicas: int, index_blocks: int, rounds: int, decisions: int = DECISIONS) -> DecisionTimes:
    """Decision times over two pools of so many replicas each; the first round warms up and is dropped."""
    traffic = _Traffic(replicas, index_blocks)
    figures: list[list[float]] = []
    for _ in range(rounds + 1):
        times = [traffic.decide() for _ in range(decisions)]
        legs = [[prefill for prefill, _ in times], [decode for _, decode in times], [sum(t) for t in times]]
        figures.append([percentile(leg, q) * 1e6 for leg in legs for q in (50, 99)])
    return DecisionTimes(
        replicas, index_blocks, *(median(column) for column in zip(*figures[1:], strict=True))
    )


def main() -> None:
    print("replicas  index blocks  prefill p50/p99    decode p50/p99     both p50/p99, µs")
    for replicas in (8, 100, 1000):
        t = measure(replicas, 1_000_000, rounds=5)
        print(
            f"{t.replicas:8}  {t.index_blocks:12}  {t.prefill_p50:7.0f} {t.prefill_p99:7.0f}  "
            f"{t.decode_p50:8.0f} {t.decode_p99:7.0f}  {t.both_p50:8.0f} {t.both_p99:7.0f}"
        )


if __name__ == "__main__":
    main()
