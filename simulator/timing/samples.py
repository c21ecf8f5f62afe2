"""What was measured on an engine, and how far a timing model is off on it."""

from collections.abc import Iterable
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from simulator.timing.base import Chunk, Timing


class FrozenFile(BaseModel):
    """Part of a JSON file that a person may have edited: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DecodeSample(FrozenFile):
    """A step that computed one token for each of `requests`, which had `context_tokens` in all."""

    requests: int = Field(ge=1)
    context_tokens: int = Field(ge=0)
    step_ms: float = Field(gt=0)


class PrefillSample(FrozenFile):
    """A step that computed `new_tokens` of one prompt behind `cached_tokens`, and nothing else."""

    new_tokens: int = Field(ge=1)
    cached_tokens: int = Field(default=0, ge=0)
    ms: float = Field(gt=0)


class HandoffSample(FrozenFile):
    """A handoff over a link that did nothing else."""

    num_bytes: int = Field(ge=1)
    ms: float = Field(gt=0)


class Samples(FrozenFile):
    """All that was measured on one engine. Without handoffs nothing is known of them."""

    decode: tuple[DecodeSample, ...] = ()
    prefill: tuple[PrefillSample, ...] = ()
    handoff: tuple[HandoffSample, ...] = ()


class RelativeError(FrozenFile):
    """`|predicted - measured| / measured` over samples: half and nine tenths of them are not above."""

    median: float = Field(ge=0)
    p90: float = Field(ge=0)

    @classmethod
    def of(cls, predicted: Iterable[float], measured: Iterable[float]) -> Self | None:
        """None without samples."""
        was = np.fromiter(measured, np.float64)
        if not len(was):
            return None
        off = np.abs(np.fromiter(predicted, np.float64) - was) / was
        return cls(median=float(np.median(off)), p90=float(np.quantile(off, 0.9)))


class Accuracy(FrozenFile):
    """How far off a timing model is; null where nothing was measured."""

    decode: RelativeError | None = None
    prefill: RelativeError | None = None
    handoff: RelativeError | None = None


def accuracy(timing: Timing, samples: Samples) -> Accuracy:
    """The errors of `timing` on the samples, which may be those that it was fitted to."""
    decode, prefill, handoff = samples.decode, samples.prefill, samples.handoff
    return Accuracy(
        decode=RelativeError.of(
            (timing.step_ms(each.requests, each.context_tokens, ()) for each in decode),
            (each.step_ms for each in decode),
        ),
        prefill=RelativeError.of(
            (timing.step_ms(0, 0, (Chunk(each.new_tokens, each.cached_tokens),)) for each in prefill),
            (each.ms for each in prefill),
        ),
        handoff=RelativeError.of(
            (timing.handoff_ms(each.num_bytes) for each in handoff), (each.ms for each in handoff)
        ),
    )
