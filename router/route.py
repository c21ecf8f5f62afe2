"""The two pools behind a model's name, as the pipeline sees them."""

from dataclasses import dataclass

from heliostat.wire import Adapter
from router.door import DecodePool, PrefillPool
from router.match import Pairing


@dataclass(frozen=True, slots=True)
class Route:
    """The two pools behind a model's name."""

    prefill: PrefillPool
    decode: DecodePool
    whole_prompt: bool = False
    """Whether prefills get x_N, too (`heliostat.spec.Connector`)."""
    prefill_adapter: Adapter | None = None
    decode_adapter: Adapter | None = None
    local_prefill_tokens: int | None = None
    """In an ICaRus pool, what a decode replica may compute of a prompt by itself; None elsewhere (rule 5)."""
    pairing: Pairing | None = None
    """Which versions of the two may meet; None: whatever the pools run belongs together."""
    untrained_pair: bool = False
