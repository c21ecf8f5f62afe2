"""What the three papers do not print, and we had to choose: every assumption of the headlines.

No length, GPU or efficiency was moved to bring a figure nearer to its paper; docs/results/README.md names the
two choices that a first look at results did change. Sensitivity rows of each headline change one assumption.
"""

from collections.abc import Mapping

from simulator.slo import Slo
from simulator.timing import A100, H100
from simulator.workload.agents import Shape
from simulator.workload.lengths import LogNormal

LLAMA = "meta-llama/Llama-3.1-8B"
QWEN = "Qwen/Qwen3-8B"
QWEN_14B = "Qwen/Qwen3-14B"
MAX_MODEL_LEN = 32768

SUN_GPU = H100
"""Assumption: SUN (arXiv 2603.02599) names no GPU where we could read it."""

SUN_PROMPT = LogNormal(mean=1024, cap=8192)
SUN_OUTPUT = LogNormal(mean=256, cap=1024)
"""Assumption: the lengths are the defaults of `simulator.workload.config`; SUN's are not known."""

SUN_ZIPF = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Assumption: SUN says "Zipf-skewed"; the exponents are the range that issue 5 asks for."""

SUN_SLO = Slo(ttft_ms=2000, tpot_ms=25)
ATTAINMENT = 0.95
"""Assumption: issue 5's SLO, kept by so many requests."""

SUN_DECODE_POLICY = "least_load"
"""Assumption: SUN's abstract has "a model-agnostic decode routing policy that balances decode requests"
and no formula; this one gives a request to the replica with the fewest. One row shows our default instead."""

SUN_DURATION_S = 30.0
SUN_WARMUP = 1 / 3
"""Of the run, until the batches are full: a request at the SLO lasts 6 s on average."""

PREFILLSHARE_GPU = A100
"""Given by the paper: one node of eight A100 (80 GB)."""

PREFILLSHARE_RATES: Mapping[str, tuple[float, ...]] = {
    "react": (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
    "reflexion": (0.2, 0.4, 0.8, 1.2, 1.6, 2.4),
}
"""Assumption, sessions/s: from idle to past PrefillShare's own limit. The paper's cap sweep is at 4."""

PREFILLSHARE_DURATION_S: Mapping[str, float] = {"react": 90.0, "reflexion": 150.0}
PREFILLSHARE_WARMUP = 0.25
"""Assumption: the paper prints neither; long enough for several generations of sessions."""

ICARUS_GPU = A100
"""Assumption: ICaRus (arXiv 2603.13281) runs on "one GPU"; which one was not in what we could read."""

ICARUS_RATES = (0.2, 0.3, 0.4, 0.6, 0.8)
ICARUS_SESSIONS = 128
ICARUS_ADAPTERS = (2, 4, 8)
"""Given by the paper (A.2.4; 0.3 appears with N = 4)."""

ICARUS_SHORT_PROMPT = 64
ICARUS_LONG_ANSWER = 256
ICARUS_CROWD_PER_S = 24.0
"""Assumption: a load that fills the batch of one A100 with short contexts, where ICaRus should lose."""

TWICE = 2
"""What a sensitivity row multiplies lengths with."""


def longer(shape: Shape) -> Shape:
    """The same session with twice the context; answers stay as they are."""
    return Shape(
        turns=shape.turns,
        agents_per_turn=shape.agents_per_turn,
        initial_tokens=shape.initial_tokens * TWICE,
        common_tokens=shape.common_tokens * TWICE,
        new_tokens=shape.new_tokens * TWICE,
        output_tokens=shape.output_tokens,
    )
