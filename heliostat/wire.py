"""What travels between the router and the replicas: plain frozen values, cheap to pickle.

`sampling` is vLLM's `SamplingParams`, encoded by the router's OpenAI adapter and decoded by the
replica's engine adapter; everything between treats it as opaque bytes.
"""

from dataclasses import dataclass

import msgspec

from heliostat.role import PoolKey as PoolKey
from heliostat.role import Role as Role


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter as replicas know it: a digest of its weights and settings, and where it is.

    The rest is what its card says of how it was made (`kvtransfer.card`), empty without a card.
    """

    digest: str
    path: str
    method: str = ""
    partner: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """What a replica runs, as far as it decides whose KV it may read, and who may read its own.

    While a pool rolls, its replicas are of two versions. `id` stands for all that follows, but for the last
    two. `weights` is the digest of the weights, `source` their name in the spec, `domain` that of the KV that
    they write, `contract` what must be equal on both sides (`kvtransfer.contract.engine_contract`). `method`
    and `partner` are the card's. `adapter` is the digest of the one that a request runs with. `partners` are
    weights on the other side, by their names, with which a spec has deployed these: routers tell, because a
    replica is not made anew when only the other side changes.
    """

    id: str = ""
    weights: str = ""
    source: str = ""
    domain: str = ""
    contract: str = ""
    method: str = ""
    partner: str = ""
    icarus: bool = False
    adapter: str = ""
    partners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaVersion:
    """A replica's answer to the question who it is."""

    replica: str
    version: Version


def adapted_domain(domain: str, adapter: Adapter | None) -> str:
    """The KV domain of a prefill module: that of its weights, told apart by its adapter (rule 3)."""
    return f"{domain}+{adapter.digest}" if domain and adapter else domain


# Made, compared and sent for every token of every stream, and at every beat: msgspec's structs take a
# fraction of what frozen dataclasses do.


class StepTime(msgspec.Struct, frozen=True):
    """A decode step's time as a replica measures it, ms: `base + per_request * b + per_token * c` for b
    requests with c tokens of context in all. All zero before the first steps."""

    base_ms: float = 0.0
    per_request_ms: float = 0.0
    per_token_ms: float = 0.0


class Load(msgspec.Struct, frozen=True):
    """What a replica carries at one moment, as it rides on every answer.

    `kv_use` is the share of KV blocks in use, 0 to 1; `queued_prompt_tokens` counts prompt tokens of
    requests that were accepted and whose first token is not out; `sequence` grows with every reading.
    `context_tokens` is the KV of the running requests, `kv_tokens` what the
    replica holds at most (0: not known yet). `tpot_ms` is the time of a decode step now (an exponential
    average), `prefill_tokens_per_s` what the replica computes while it computes; both 0 before the first.
    `shares` counts requests in the replica, by model.
    """

    replica: str
    running: int
    waiting: int
    queued_prompt_tokens: int
    kv_use: float
    sequence: int
    max_running: int = 0
    context_tokens: int = 0
    kv_tokens: int = 0
    tpot_ms: float = 0.0
    step: StepTime = StepTime()
    prefill_tokens_per_s: float = 0.0
    shares: tuple[tuple[str, int], ...] = ()
    domain: str = ""
    """The KV domain that a prefill replica writes."""


class Door(msgspec.Struct, frozen=True):
    """What waits in one router for a pool: requests in the queue for a slot of their decode pool, the tokens
    of their prompts, and how many got a slot since the router's start. A prefill pool is told of the
    requests that will come to it."""

    queued: int = 0
    queued_tokens: int = 0
    let_in: int = 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """The small message that stands for a handoff: who holds which KV, for how many tokens, until when.

    `ticket_id` names the KV in its transport; `prefix_digest` commits to x_1 … x_{N-1} and `domain` to
    the weights that wrote it, so that a ticket cannot be read for another prompt or module.
    `address` says where, in the transport's own terms. `num_bytes` counts the whole KV, also when it is
    still being computed (`streamed`). `expires_at_s` is Unix time on the owner's host. `raw` is what a
    connector that is not ours answered, as JSON; of the rest of such a ticket only `writer` means anything.
    `writer` is the version that wrote the KV, with the request's adapter.
    """

    ticket_id: str
    transport: str
    address: str
    domain: str
    prefix_digest: str
    num_tokens: int
    num_blocks: int
    num_bytes: int
    owner: str
    expires_at_s: float
    streamed: bool = False
    raw: str | None = None
    writer: Version | None = None


@dataclass(frozen=True, slots=True)
class PrefillRequest:
    """Write the KV of x_1 … x_{N-1}; `token_ids` holds exactly those N-1 ids (rule 1).

    A connector that is not ours gets all N: its decode side expects them, and computes x_N again.
    """

    request_id: str
    model: str
    token_ids: tuple[int, ...]
    avoid: frozenset[str] = frozenset()
    """Replicas on which this request has failed; the next best is asked, unless there is none."""
    session: str = ""
    """What the client calls the conversation, or the context of several; policies keep one together."""
    adapter: Adapter | None = None
    versions: frozenset[str] | None = None
    """Ids of the versions that may write this KV (`Version.id`); None: whichever the pool runs."""
    traceparent: str = ""
    tracestate: str = ""
    """W3C trace context of the leg; empty when no spans are made."""
    reuse_soon: bool = False
    """The client says that this prompt's beginning will be asked again soon."""


@dataclass(frozen=True, slots=True)
class PrefillResult:
    """A finished prefill: the ticket, and what it cost. `cached_tokens` came from the prefix cache;
    `cross_model_tokens` of them another model had brought there, as the replica notes (not its engine)."""

    ticket: Ticket
    load: Load
    cached_tokens: int
    save_ms: float
    cross_model_tokens: int = 0


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """Run x_N and everything after it over the ticket's KV; `token_ids` is the whole prompt x_1 … x_N.

    `ticket` is None for a prompt of one token, for which there is nothing to prefill (rule 1), and in an
    ICaRus pool where the replica writes what its own cache lacks: its base is the writer (rule 8).
    """

    request_id: str
    model: str
    token_ids: tuple[int, ...]
    ticket: Ticket | None
    sampling: bytes
    generated: tuple[int, ...] = ()
    """Tokens that a lost replica has generated: forced input after x_N, not to be sent again (rule 6)."""
    max_tokens: int = 0
    """Output tokens that may still come; 0: as many as fit."""
    expected_tokens: int = 0
    """Output tokens that are likely to come, by the model's recent answers; 0: no history."""
    avoid: frozenset[str] = frozenset()
    session: str = ""
    """Both as in `PrefillRequest`."""
    adapter: Adapter | None = None
    reply_to: str = ""
    """Address of the router's inbox, to which token frames go (`router.channel`)."""
    versions: frozenset[str] | None = None
    """Ids of the versions that may read the ticket's KV, or go on with the answer; None: all of the pool."""
    untrained_pair: bool = False
    """The spec pairs the two modules whatever their cards say."""
    traceparent: str = ""
    tracestate: str = ""
    """As in `PrefillRequest`."""


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """The end of a decode leg: its tokens went to the router's inbox, `num_tokens` of them."""

    load: Load
    num_tokens: int


class TokenLogprobs(msgspec.Struct, array_like=True, frozen=True):
    """Log probabilities at one output position, sampled token first, as (token id, logprob, rank)."""

    entries: tuple[tuple[int, float, int | None], ...]


class TokenDelta(msgspec.Struct, array_like=True, frozen=True):
    """New tokens of one of the request's n sequences; `finish_reason` is set on its last delta."""

    index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class TokenFrame(msgspec.Struct, frozen=True):
    """What one engine step produced for one request.

    `load_ms` is set on the frame that ends a handoff, `cached_tokens` on the first one of a leg without a
    ticket: tokens of its prompt that the engine had in its prefix cache. `cross_model_tokens` is as in
    `PrefillResult`.
    """

    deltas: tuple[TokenDelta, ...]
    finished: bool
    load: Load
    load_ms: float | None
    cached_tokens: int | None = None
    cross_model_tokens: int = 0
