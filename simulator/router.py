"""One router replica of a simulated cluster: board, door and choosers, all of them production's."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

from heliostat.spec import Spec
from heliostat.wire import PoolKey, Role
from router.admission import Admission, PoolFigures, Slot
from router.admission.state import NO_HISTORY_TOKENS
from router.choice import Chooser
from router.policy import DEFAULTS, POLICIES
from router.telemetry import TelemetryBoard
from simulator.scaling import Scaling

TPOT_MS = 25.0
"""The target of pools whose spec names none."""


@dataclass(frozen=True)
class Options:
    """How a cluster is run.

    `policies` by role replace the spec's. `routers` share the arrivals and do not talk to each other. With
    `oracle`, policies and admission know how long each answer will be. Replicas report every `beat_s`. A
    call takes `call_s` each way. Without `admission` everybody goes on to the pools.
    """

    policies: Mapping[Role, str] = field(default_factory=dict)
    admission: bool = True
    routers: int = 1
    oracle: bool = False
    kv_events: bool = True
    beat_s: float = 0.1
    call_s: float = 0.001
    progress_s: float = 0.5
    """How often admission hears of the tokens of running requests; in production with every frame."""
    host_cores: float | None = None
    """Replicas share so many cores (CPU engines on one machine); None: each has a GPU of its own. A core is
    what one engine takes (`HostShare.engines` of a calibration)."""
    front_ms: float = 0.0
    """What routers and proxies compute for a request before its prefill, in each router one request at a
    time; on the host's cores, if any."""
    front_token_ms: float = 0.0
    """What they compute for a token, on the host's cores."""
    scaling: Scaling | None = None
    """How pools grow and shrink; None: they have the most replicas that the spec allows, all the time."""


class Router:
    """`names` are the replicas of each pool, the same tuples as long as they are the same
    (`TelemetryBoard.candidates`); its owner changes it."""

    def __init__(
        self,
        number: int,
        spec: Spec,
        names: Mapping[PoolKey, tuple[str, ...]],
        options: Options,
        *,
        clock: Callable[[], float],
        block_tokens: int,
        seed: int,
    ) -> None:
        self.board = TelemetryBoard(clock, spec.router.prefix_blocks, block_tokens)
        self.streams: Counter[str] = Counter()
        """Its open streams, by replica: whose token frames bring it their load."""
        self.thread = asyncio.Lock()
        """A router replica is one process with one thread for all of its requests."""
        self._names = names
        self._routers = options.routers
        pools = spec.pools()
        self._choosers = {
            key: self._chooser(
                key[0],
                options.policies.get(key[0]) or pools[key].policy,
                pools[key].tpot_ms,
                random.Random(f"{seed} {number} {key}"),
            )
            for key in names
        }
        self.admission = Admission(spec, self, clock, options.routers) if options.admission else None
        self._outputs = MeanOutputs()

    def _chooser(self, role: Role, policy: str | None, tpot_ms: float | None, draw: random.Random) -> Chooser:
        made = POLICIES[policy or DEFAULTS[role]].make()
        target = (tpot_ms or TPOT_MS) if role is Role.DECODE else 0.0
        return Chooser(self.board, made, draw.random, tpot_target_ms=target, routers=self._routers)

    def slots(self, role: Role, pool: str) -> PoolFigures:
        """For admission (`router.admission.PoolCapacity`). Colocated pools are known by one role only."""
        names = self._names.get((role, pool))
        return self.board.figures(names) if names else PoolFigures()

    def slot(self, model: str, prompt_tokens: int, known: int) -> AbstractAsyncContextManager[Slot | None]:
        """A place in the model's decode pool; `known` output tokens, 0 if nobody knows."""
        if self.admission is None:
            return nullcontext()
        self.admission.check(model)
        return self.admission.slot(model, prompt_tokens, 0, expected_tokens=known)

    def expected_tokens(self, model: str) -> int:
        """Output tokens that a request of the model is likely to take."""
        if self.admission is None:
            return self._outputs.expected(model)
        return self.admission.expected_tokens(model, 0)

    def answered(self, model: str, output_tokens: int) -> None:
        """Where no admission takes note of it."""
        self._outputs.add(model, output_tokens)

    def choose(
        self,
        key: PoolKey,
        leg: str,
        num_tokens: int,
        output: int = 0,
        names: tuple[int, ...] = (),
        session: str = "",
    ) -> str:
        """The replica that gets this leg; booked until `ended`."""
        replicas = self._names[key]
        place = self._choosers[key].place
        best = place(replicas, leg, leg, num_tokens, output, names, session=session, returns=bool(session))[0]
        self.streams[replicas[best]] += 1
        return replicas[best]

    def ended(self, leg: str, replica: str) -> None:
        """The leg is over."""
        self.streams[replica] -= 1
        self.board.succeeded(replica)
        self.board.ended(leg)
        self.board.left(leg)


class MeanOutputs:
    """Mean output tokens per model, for a router without admission."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, int]] = {}

    def expected(self, model: str) -> int:
        """What a request of the model is likely to take."""
        number, tokens = self._sums.get(model, (0, 0))
        return tokens // number if number else NO_HISTORY_TOKENS

    def add(self, model: str, tokens: int) -> None:
        """One more answer."""
        number, before = self._sums.get(model, (0, 0))
        self._sums[model] = (number + 1, before + tokens)
