"""One decode request in a `sim` engine: its history, its place, and the frames that nobody has read yet."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

import msgspec

from deployments.engine import EngineConfig
from deployments.sim_tokens import extend, first_state
from heliostat.errors import HandoffFailedError
from heliostat.wire import DecodeRequest, Ticket, TokenDelta, TokenFrame
from kvtransfer.handoff import CopyRecord, Direction, digest_tokens
from simulator.profile import ReplicaTiming


class SimSampling(msgspec.Struct, omit_defaults=True):
    """What of vLLM's `SamplingParams` matters here, in its names and encoding."""

    n: int = 1
    max_tokens: int | None = 16


class Phase(Enum):
    """Where a request is."""

    WAITING = "waiting"
    LOADING = "loading"
    RUNNING = "running"
    OVER = "over"


@dataclass(slots=True, eq=False)
class Stream:
    """One request: `states` are its n histories, `context` the KV tokens of all of them."""

    model: str
    states: list[int]
    context: int
    left: int
    handoff_s: float
    ticket: Ticket | None = None
    phase: Phase = Phase.WAITING
    load_ms: float | None = None
    handoff: asyncio.Task[None] | None = None
    frames: deque[TokenFrame] = field(default_factory=deque)
    waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Its reader has something to look at."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


@lru_cache(maxsize=65_536)
def delta(index: int, token: int, last: bool) -> TokenDelta:
    """Equal ones are shared: nothing is built per token but its frame."""
    return TokenDelta(index, (token,), None, "length" if last else None, None)


def open_stream(config: EngineConfig, timed: ReplicaTiming, request: DecodeRequest, now_s: float) -> Stream:
    """At Unix time `now_s`. `left` is below 1 if the lost replica had sent everything but the end.

    Raises HandoffFailedError for a prompt whose KV is not at hand (rule 5), or never fits.
    """
    replica, ticket, prompt = config.replica, request.ticket, request.token_ids
    if ticket is None:
        if len(prompt) > 1:
            raise HandoffFailedError(f"{replica}: a prompt of several tokens needs a ticket")
    elif (ticket.num_tokens, ticket.prefix_digest) != (
        len(prompt) - 1,
        digest_tokens(prompt[:-1], ticket.domain),
    ):
        raise HandoffFailedError(f"ticket {ticket.ticket_id} stands for the KV of another prompt")
    elif ticket.expires_at_s < now_s:
        raise HandoffFailedError(f"{replica}: the lease of ticket {ticket.ticket_id} has ended")
    sampling = msgspec.msgpack.decode(request.sampling, type=SimSampling)
    fits = min(config.family.max_model_len, timed.kv_tokens // sampling.n) - len(prompt)
    if fits < 1:
        raise HandoffFailedError(f"{replica}: a prompt of {len(prompt)} tokens does not fit", replica)
    domain = ticket.domain if ticket else ""
    states = [first_state(prompt, domain, config.domain, index) for index in range(sampling.n)]
    for token in request.generated:
        states = [extend(state, token) for state in states]
    return Stream(
        model=request.model,
        states=states,
        context=(len(prompt) + len(request.generated)) * sampling.n,
        left=min(fits, sampling.max_tokens or fits) - len(request.generated),
        handoff_s=timed.timing.handoff_ms(ticket.num_bytes) / 1e3 if ticket else 0.0,
        ticket=ticket,
    )


def load_record(ticket: Ticket, ms: float, kind: str = "", failure: str | None = None) -> CopyRecord:
    """A handoff's load as ledgers book it; `kind` and `failure` are those of one that failed."""
    return CopyRecord(
        ticket_id=ticket.ticket_id,
        domain=ticket.domain,
        direction=Direction.LOAD,
        num_blocks=ticket.num_blocks,
        num_bytes=ticket.num_bytes,
        ms=ms,
        hidden_ms=0.0,
        kind=kind,
        failure=failure,
    )
