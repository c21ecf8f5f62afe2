"""A recorded trace as a workload: a window of it, faster or slower, its requests given to our models."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heliostat.errors import SpecError
from simulator.workload.base import Call, Session
from simulator.workload.blocks import FreshNames, num_blocks
from simulator.workload.popularity import Assign, chooser, describe_assign


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One line of a trace. `group` numbers what shares a prefix, None: nothing is known of it.

    `blocks` names the prompt's first blocks, as many as the trace knows; the others are unlike any other.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a trace is replayed. `start_s` and `duration_s` (None: to its end) are in the trace's own time.

    `speed` 2 halves all times, so it doubles the rate. A request whose prompt and answer exceed
    `max_model_len` tokens (None: no limit) is skipped, or the end of its prompt is cut off, to whole blocks.
    """

    speed: float = 1.0
    start_s: float = 0.0
    duration_s: float | None = None
    max_model_len: int | None = None
    too_long: Literal["skip", "cut"] = "skip"


@dataclass(frozen=True, slots=True)
class Replay:
    """A `Workload` of single requests. The seed decides only the models, by Zipf (SUN); by turns nothing.

    Turns are taken within a group (PrefillShare). A session is named after its group, as a client would name
    its conversation; every request stands for itself, at the time when the trace has it.
    """

    source: str
    models: tuple[str, ...]
    requests: tuple[TraceRequest, ...]
    duration_s: float
    block_tokens: int
    assign: Assign = "zipf"
    zipf: float = 1.0

    @property
    def description(self) -> str:
        return f"{self.source}; {describe_assign(self.assign, self.models, self.zipf)}"

    def sessions(self, seed: int) -> Iterator[Session]:
        choose = chooser(self.assign, self.models, self.zipf, random.Random(f"{seed}:models"))
        names = FreshNames(1 + max((max(r.blocks, default=-1) for r in self.requests), default=-1))
        for number, request in enumerate(self.requests):
            # A request without a group is one of its own; negative numbers are free for these.
            model = choose(-1 - number if request.group is None else request.group)
            unknown = num_blocks(request.prompt_tokens, self.block_tokens) - len(request.blocks)
            blocks = request.blocks + names.take(unknown)
            name = "" if request.group is None else f"group-{request.group}"
            call = Call(model, request.prompt_tokens, request.output_tokens, blocks)
            yield Session(name, request.at_s, (call,))


def make_replay(
    path: Path,
    requests: Sequence[TraceRequest],
    selection: Selection,
    models: tuple[str, ...],
    block_tokens: int,
    assign: Assign,
    zipf: float,
) -> Replay:
    """The selected part of the trace in `path`, which holds `requests`, in any order.

    Raises SpecError if the trace is empty, or nothing of it is left.
    """
    if not requests:
        raise SpecError(str(path), ("holds no request; give a trace with at least one",))
    in_order = sorted(requests, key=lambda request: request.at_s)
    last_s = in_order[-1].at_s
    length_s = last_s - selection.start_s if selection.duration_s is None else selection.duration_s
    end_s = selection.start_s + length_s
    window = [request for request in in_order if selection.start_s <= request.at_s <= end_s]
    if not window:
        there = f"the trace goes from {in_order[0].at_s:g} s to {last_s:g} s"
        asked = f"from {selection.start_s:g} s to {end_s:g} s"
        raise SpecError(str(path), (f"no request {asked}; {there}: choose another start_s or duration_s",))
    fitting = [fit for request in window if (fit := _fit(request, selection, block_tokens)) is not None]
    if not fitting:
        limit = f"longer than max_model_len {selection.max_model_len}"
        raise SpecError(str(path), (f"all {len(window)} requests are {limit}; raise it",))
    source = f"{len(fitting)} requests of {path.name} at {selection.speed:g}x speed"
    too_long = _say_too_long(window, fitting, selection)
    return Replay(
        source + too_long, models, tuple(fitting), length_s / selection.speed, block_tokens, assign, zipf
    )


def _too_long(request: TraceRequest, selection: Selection) -> bool:
    limit = selection.max_model_len
    return limit is not None and request.prompt_tokens + request.output_tokens > limit


def _fit(request: TraceRequest, selection: Selection, block_tokens: int) -> TraceRequest | None:
    """The request at its time in the replay; None if it is skipped."""
    prompt = request.prompt_tokens
    blocks = request.blocks
    if selection.max_model_len is not None and _too_long(request, selection):
        # Whole blocks: in a block that is cut, a name would stand for a content that is not there.
        kept = (selection.max_model_len - request.output_tokens) // block_tokens
        if selection.too_long == "skip" or kept < 1:
            return None
        prompt, blocks = kept * block_tokens, blocks[:kept]
    at_s = (request.at_s - selection.start_s) / selection.speed
    return TraceRequest(at_s, prompt, request.output_tokens, blocks, request.group)


def _say_too_long(
    window: Sequence[TraceRequest], fitting: Sequence[TraceRequest], selection: Selection
) -> str:
    skipped = len(window) - len(fitting)
    cut = sum(_too_long(request, selection) for request in window) - skipped
    said = [f"{count} {what}" for count, what in ((skipped, "skipped"), (cut, "cut")) if count]
    return f" ({' and '.join(said)}: over {selection.max_model_len} tokens)" if said else ""
