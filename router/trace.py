"""What became of one request, filled in while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from heliostat.errors import HeliostatError, RequestError
from heliostat.wire import PrefillResult, Role, Ticket
from router.tracing.context import TraceContext


def error_type(error: HeliostatError) -> str:
    """The class of one of our errors. Ray hands those of replicas on in a class made of that and its own."""
    module = HeliostatError.__module__
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == module)


@dataclass(slots=True)
class Leg:
    """One try of one of a request's legs. Times are those of `Trace`.

    `copy_ms` is what its side of the handoff took, `failure` the error that ended it; empty for a leg that
    succeeded, and for one that was `cut`: its request ended first.
    """

    role: Role
    leg_id: str
    attempt: int
    context: TraceContext | None
    started_s: float
    ended_s: float = 0.0
    replica: str = ""
    domain: str = ""
    cached_tokens: int = 0
    output_tokens: int = 0
    handoff_bytes: int = 0
    copy_ms: float = 0.0
    error_type: str = ""
    failure: str = ""
    cut: bool = False

    @property
    def traceparent(self) -> str:
        """Makes the replica's spans children of this leg; empty when no spans are made."""
        return self.context.traceparent if self.context else ""

    @property
    def tracestate(self) -> str:
        """What travels beside it."""
        return self.context.state if self.context else ""

    @contextmanager
    def timed(self, clock: Callable[[], float]) -> Iterator[None]:
        """Notes when the leg ends, and how."""
        try:
            yield
        except RequestError as error:
            self.failed(error)
            raise
        except BaseException:
            self.cut = True
            raise
        finally:
            self.ended_s = clock()

    def failed(self, error: RequestError) -> None:
        """This error ends it."""
        self.error_type, self.failure = error_type(error), error.message
        self.replica = getattr(error, "replica", "") or self.replica


@dataclass(slots=True)
class Trace:
    """Replicas, tokens and times of one request. Times are seconds, monotonic; 0: not yet.

    `handoff_bytes` counts every attempt, `cached_tokens` the first one that got a ticket: a later one finds
    what that one computed. `cross_model_tokens` of them another model had brought, and to compute them would
    have taken `saved_ms` (0: no rate is known). `failures` are the messages of the legs that failed, also
    when another replica then did the work. `context` is the request's span, if spans are made at all; its
    legs get one each.
    """

    prefill_replica: str | None = None
    decode_replica: str | None = None
    cached_tokens: int = 0
    cross_model_tokens: int = 0
    saved_ms: float = 0.0
    output_tokens: int = 0
    handoff_bytes: int = 0
    save_ms: float = 0.0
    load_ms: float = 0.0
    attempts: int = 0
    finished: bool = False
    """Whether the client has its whole answer; a stop string ends one before the decode replica does."""
    failures: list[str] = field(default_factory=list)
    started_s: float = 0.0
    entered_s: float = 0.0
    """When the pipeline had it; until then its prompt was rendered and tokenized."""
    admitted_s: float = 0.0
    prefilled_s: float = 0.0
    first_token_s: float = 0.0
    ended_s: float = 0.0
    retry_after_s: float = 0.0
    request_id: str = ""
    model: str = ""
    prompt_tokens: int = 0
    outcome: str = ""
    """How it ended (`router.accounts.Outcome`); empty while it runs."""
    error_type: str = ""
    """The class of the error that ended it, if one did."""
    context: TraceContext | None = None
    legs: list[Leg] = field(default_factory=list)

    def leg(self, role: Role, leg_id: str, now_s: float) -> Leg:
        """Another leg begins; `Leg.timed` says when it ends."""
        context = self.context.child() if self.context else None
        self.legs.append(Leg(role, leg_id, self.attempts, context, now_s))
        return self.legs[-1]

    def prefilled(self, leg: Leg, result: PrefillResult) -> Ticket:
        """A prefill leg has a ticket; an early one twice, the first time for KV that is still on its way."""
        if self.prefill_replica is None:
            self.cached_tokens, self.cross_model_tokens = result.cached_tokens, result.cross_model_tokens
        self.prefill_replica = leg.replica = result.load.replica
        leg.cached_tokens = result.cached_tokens
        if not result.ticket.streamed:
            self.handoff_bytes += result.ticket.num_bytes
            leg.handoff_bytes = result.ticket.num_bytes
        self.save_ms = leg.copy_ms = result.save_ms
        leg.domain = result.ticket.domain
        return result.ticket

    def answers(self, prompt: "Trace") -> None:
        """One of the prompts of the HTTP request that this stands for has its first token."""
        self.cached_tokens += prompt.cached_tokens
        self.cross_model_tokens += prompt.cross_model_tokens
        self.saved_ms += prompt.saved_ms
