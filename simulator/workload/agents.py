"""Agent sessions: several models, called one after the other, over one growing context.

PrefillShare (arXiv 2602.12029, section 4.1) and ICaRus (arXiv 2603.13281, section 4.1 and A.2.3) measure on
such sessions, with fixed lengths per call, new sessions at a rate, and no think time. Both take their lengths
from token statistics of Kim et al. (arXiv 2506.04301) without printing them, so **the lengths here are
assumptions**, in the range of ReAct on HotPotQA: 1,500 tokens to begin with (instructions and examples, then
the question), 100 tokens of thought and action per call, 350 of observation. Not covered: lengths and numbers
of turns that differ between sessions, and Reflexion's trials that drop the transcript of the trial before.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from simulator.workload.arrivals import poisson
from simulator.workload.base import Call, Session
from simulator.workload.blocks import FreshNames
from simulator.workload.popularity import Assign, Chooser, chooser, describe_assign


@dataclass(frozen=True, slots=True)
class Shape:
    """One session: `turns` of `agents_per_turn` calls each. All lengths in tokens.

    Call i has the prompt `X_i = X_(i-1) + answer_(i-1) + new input` (PrefillShare, section 3.3); X_0 has
    `initial_tokens`, of which the first `common_tokens` are the same in all sessions. An answer has
    `output_tokens`, the new input behind it `new_tokens`. Raises ValueError if the numbers do not fit.
    """

    turns: int
    agents_per_turn: int
    initial_tokens: int = 1500
    common_tokens: int = 1000
    new_tokens: int = 350
    output_tokens: int = 100

    def __post_init__(self) -> None:
        if min(self.turns, self.agents_per_turn, self.initial_tokens, self.output_tokens) < 1:
            raise ValueError("turns, agents_per_turn, initial_tokens and output_tokens must be at least 1")
        if self.new_tokens < 0 or self.common_tokens < 0:
            raise ValueError("new_tokens and common_tokens must be at least 0")
        if self.common_tokens > self.initial_tokens:
            raise ValueError(
                f"common_tokens {self.common_tokens} is larger than initial_tokens {self.initial_tokens}; "
                "the first is a part of the second"
            )

    @property
    def calls(self) -> int:
        return self.turns * self.agents_per_turn

    @property
    def longest_tokens(self) -> int:
        """Prompt and answer of the last call: what `max_model_len` must hold."""
        grown = (self.calls - 1) * (self.output_tokens + self.new_tokens)
        return self.initial_tokens + grown + self.output_tokens


REACT = Shape(turns=3, agents_per_turn=4)
"""PrefillShare's ReAct: 4 agents in sequence per turn.

"Several turns" are taken to be 3, because the hit ratios are then those of its cap sweep, 89 % and 60 %: with
room for all KV, 89 % of the prompt tokens are hits where the models share their prompts' KV, and 60 % where
each has its own (`tests/simulator/workload/test_agents.py` computes it).
"""

REFLEXION = Shape(turns=6, agents_per_turn=4)
"""PrefillShare's Reflexion: two trials of ReAct's length, the second behind the first; context about 2x."""

ICARUS_REACT = Shape(turns=8, agents_per_turn=1)
"""ICaRus' ReAct: one call per turn, the models (2, 4 or 8 adapters) round robin; 5 to 8 turns are usual."""

ICARUS_REFLEXION = Shape(turns=16, agents_per_turn=1)
"""ICaRus' Reflexion: two trials."""

SHAPES = {
    "react": REACT,
    "reflexion": REFLEXION,
    "icarus-react": ICARUS_REACT,
    "icarus-reflexion": ICARUS_REFLEXION,
}


@dataclass(frozen=True, slots=True)
class Agents:
    """A `Workload` of agent sessions that begin as a Poisson process of `rate_per_s` sessions per second.

    The models are called by turns, the next session beginning one model later; or each call draws its model
    by Zipf (ICaRus, appendix F). The block names say nothing of the model: who shares KV is the topology's
    affair. `pause_s` is what a tool takes between two calls.
    """

    models: tuple[str, ...]
    rate_per_s: float
    duration_s: float
    shape: Shape = REACT
    assign: Assign = "turns"
    zipf: float = 1.0
    pause_s: float = 0.0
    block_tokens: int = 16

    @property
    def description(self) -> str:
        shape = self.shape
        calls = f"{shape.turns} x {shape.agents_per_turn} calls"
        return (
            f"{self.rate_per_s:g} agent sessions/s for {self.duration_s:g} s; {calls} from "
            f"{shape.initial_tokens} to {shape.longest_tokens} tokens, {shape.output_tokens} per answer; "
            f"{describe_assign(self.assign, self.models, self.zipf)}"
        )

    def sessions(self, seed: int) -> Iterator[Session]:
        choose = chooser(self.assign, self.models, self.zipf, random.Random(f"{seed}:models"))
        names = FreshNames()
        common = names.take(self.shape.common_tokens // self.block_tokens)
        arrivals = partial(poisson, rate_per_s=self.rate_per_s)(random.Random(f"{seed}:arrivals"))
        for number in itertools.count():
            at_s = next(arrivals)
            if at_s > self.duration_s:
                return
            calls = tuple(self._calls(choose, number, common, names))
            yield Session(f"agents-{number}", at_s, calls, self.pause_s)

    def _calls(
        self, choose: Chooser, session: int, common: tuple[int, ...], names: FreshNames
    ) -> Iterator[Call]:
        shape, size = self.shape, self.block_tokens
        # The full blocks of the context as it is in the end: every prompt and answer is a beginning of it.
        context = common + names.take(shape.longest_tokens // size - len(common))
        prompt = shape.initial_tokens
        for _ in range(shape.calls):
            blocks = context[: prompt // size]
            if prompt % size:
                # A partly filled block is another content than the full one it becomes.
                blocks += names.take(1)
            kept = context[: (prompt + shape.output_tokens) // size]
            yield Call(choose(session), prompt, shape.output_tokens, blocks, kept)
            prompt += shape.output_tokens + shape.new_tokens
