"""Agents that ask several specialists about one context, and what they saw (`benchmarks.agent_context`)."""

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.load import random_letters
from heliostat import AsyncClient, AsyncContext, ContextUsage
from heliostat.errors import HeliostatError

CONTEXT_CHARACTERS = 1000
QUESTION_CHARACTERS = 16
ANSWER_TOKENS = 16
TURNS = 3
AGENTS_AT_A_TIME = 2


@dataclass(frozen=True, slots=True)
class Side:
    """One way to serve the specialists: where each is asked."""

    name: str
    models: Mapping[str, str]
    """Base URL by model."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the agents of one side saw in one round; tokens are sums over all of them."""

    agents: int
    agent_ms: tuple[float, ...]
    ttft_ms: tuple[float, ...]
    prompt_tokens: int
    cached_tokens: int
    cross_model_tokens: int
    saved_ms: float

    @property
    def prefilled(self) -> float:
        """Prompt tokens that were computed, per agent."""
        return (self.prompt_tokens - self.cached_tokens) / self.agents


class Agent:
    """One agent's context: the same messages wherever a specialist is asked."""

    def __init__(self, side: Side, clients: Mapping[str, AsyncClient], rng: random.Random) -> None:
        document = random_letters(rng, CONTEXT_CHARACTERS)
        self._contexts = {url: client.context(documents=[document]) for url, client in clients.items()}
        self._models = side.models
        self._rng = rng

    @property
    def used(self) -> list[ContextUsage]:
        """By server."""
        return [context.usage for context in self._contexts.values()]

    async def run(self) -> list[float]:
        """All turns; the TTFT of each question, in ms."""
        ttft_ms: list[float] = []
        for _ in range(TURNS):
            asked = [(model, random_letters(self._rng, QUESTION_CHARACTERS)) for model in self._models]
            ttft_ms += await asyncio.gather(
                *(_ask(self._contexts[self._models[model]], model, question) for model, question in asked)
            )
            # As long as the real answers, so that all sides go on with prompts of the same lengths.
            said = random_letters(self._rng, len(asked) * ANSWER_TOKENS)
            for context in self._contexts.values():
                context.add(said)
        return ttft_ms


async def run_agents(side: Side, count: int, seed: str) -> Sample:
    """`count` agents, `AGENTS_AT_A_TIME` of them at a time. Raises HeliostatError."""
    numbers = iter(range(count))
    agent_ms: list[float] = []
    ttft_ms: list[float] = []
    agents: list[Agent] = []

    async def one_after_the_other(clients: Mapping[str, AsyncClient]) -> None:
        for number in numbers:
            # Sides share replicas that stand alone anyway: what one has asked, the other must not find.
            agents.append(agent := Agent(side, clients, random.Random(f"{seed} {side.name} {number}")))
            start_s = time.perf_counter()
            ttft_ms.extend(await agent.run())
            agent_ms.append((time.perf_counter() - start_s) * 1000)

    async with AsyncExitStack() as stack:
        urls = dict.fromkeys(side.models.values())
        clients = {url: await stack.enter_async_context(AsyncClient(url)) for url in urls}
        await asyncio.gather(*(one_after_the_other(clients) for _ in range(AGENTS_AT_A_TIME)))
    used = [each for agent in agents for each in agent.used]
    return Sample(
        count,
        tuple(agent_ms),
        tuple(ttft_ms),
        sum(each.prompt_tokens for each in used),
        sum(each.cached_tokens for each in used),
        sum(each.cross_model_tokens for each in used),
        sum(each.saved_ms for each in used),
    )


async def _ask(context: AsyncContext, model: str, question: str) -> float:
    asked_s = time.perf_counter()
    async with context.stream_ask(
        model, question, temperature=0, max_tokens=ANSWER_TOKENS, extra_body={"ignore_eos": True}
    ) as stream:
        first_s = 0.0
        async for piece in stream:
            if not first_s and piece.text:
                first_s = time.perf_counter()
    if stream.answer.usage.output_tokens != ANSWER_TOKENS:
        raise HeliostatError(f"model {model}: {stream.answer.usage.output_tokens} tokens came")
    return ((first_s or time.perf_counter()) - asked_s) * 1000
