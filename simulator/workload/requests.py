"""Requests that know nothing of each other: arrivals, models and lengths, each drawn by itself."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from simulator.workload.arrivals import Arrivals
from simulator.workload.base import Call, Session
from simulator.workload.blocks import FreshNames, num_blocks
from simulator.workload.lengths import Lengths
from simulator.workload.popularity import Assign, chooser, describe_assign


@dataclass(frozen=True, slots=True)
class Independent:
    """A `Workload` of single requests. `pattern` says in words what `arrivals` does.

    A prompt is a system prompt of `system_tokens` (0: none) and as many tokens of its own as `prompt` draws.
    The system prompt is one for all models, or each model has its own (`system_per_model`). Its full blocks
    have the same names wherever it stands; every other block is unlike any other.
    """

    models: tuple[str, ...]
    arrivals: Arrivals
    pattern: str
    duration_s: float
    prompt: Lengths
    output: Lengths
    assign: Assign = "zipf"
    zipf: float = 1.0
    system_tokens: int = 0
    system_per_model: bool = False
    block_tokens: int = 16

    @property
    def description(self) -> str:
        system = f"{self.system_tokens} system + " if self.system_tokens else ""
        return (
            f"{self.pattern} for {self.duration_s:g} s; prompts {system}{self.prompt}, "
            f"answers {self.output} tokens; {describe_assign(self.assign, self.models, self.zipf)}"
        )

    def sessions(self, seed: int) -> Iterator[Session]:
        # A generator for each quantity: another popularity or length leaves the arrivals as they are.
        choose = chooser(self.assign, self.models, self.zipf, random.Random(f"{seed}:models"))
        draw_prompt = self.prompt.drawn_from(random.Random(f"{seed}:prompts"))
        draw_output = self.output.drawn_from(random.Random(f"{seed}:outputs"))
        names = FreshNames()
        system = self._system_blocks(names)
        for number, at_s in enumerate(self.arrivals(random.Random(f"{seed}:arrivals"))):
            if at_s > self.duration_s:
                return
            model = choose(number)
            prompt_tokens = self.system_tokens + draw_prompt()
            shared = system[model]
            own = names.take(num_blocks(prompt_tokens, self.block_tokens) - len(shared))
            yield Session("", at_s, (Call(model, prompt_tokens, draw_output(), shared + own),))

    def _system_blocks(self, names: FreshNames) -> dict[str, tuple[int, ...]]:
        # The block in which the system prompt ends goes on with the request's own tokens: nobody shares it.
        full = self.system_tokens // self.block_tokens
        if self.system_per_model:
            return {model: names.take(full) for model in self.models}
        return dict.fromkeys(self.models, names.take(full))
