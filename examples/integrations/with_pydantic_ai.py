"""Pydantic AI over Heliostat: four specialists over one context, a stream, a schema and a tool.

    pip install 'pydantic-ai-slim[openai]'
    python examples/integrations/with_pydantic_ai.py --base-url http://127.0.0.1:8000/v1

What it asks is in `house.py`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator

from house import CONTEXT, ORDER, QUESTIONS, SHORT, WARMTH, Command, base_url, sensor
from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelSettings, NativeOutput, RunContext, Tool
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


# docs: start
def sensor_first(context: RunContext) -> ModelSettings:
    """The first step must call it, the second must answer."""
    choice = ["sensor"] if context.run_step == 1 else "none"
    return ModelSettings(tool_choice=choice, parallel_tool_calls=False)


class Specialists:
    def __init__(self, base_url: str) -> None:
        # One session for all that is asked over one context.
        session = {"x-heliostat-session": uuid.uuid4().hex}
        client = AsyncOpenAI(base_url=base_url, api_key="none", default_headers=session)
        self._provider = OpenAIProvider(openai_client=client)

    def agent(self, model: str, **settings: object) -> Agent:
        chat = OpenAIChatModel(model, provider=self._provider, settings=ModelSettings(temperature=0))
        return Agent(chat, instructions=CONTEXT, **settings)

    async def ask(self, model: str, question: str) -> str:
        hint = ModelSettings(extra_headers=SHORT)
        return (await self.agent(model).run(question, model_settings=hint)).output

    async def command(self, question: str) -> Command:
        # NativeOutput is response_format, guided; without it the schema goes out as a tool.
        return (await self.agent("home", output_type=NativeOutput(Command)).run(question)).output

    async def with_sensor(self, question: str) -> str:
        agent = self.agent("base", tools=[Tool(sensor, strict=True)])
        return (await agent.run(question, model_settings=sensor_first)).output

    # docs: end

    async def ask_all(self, questions: dict[str, str]) -> dict[str, str]:
        answers = await asyncio.gather(*(self.ask(*each) for each in questions.items()))
        return dict(zip(questions, answers, strict=True))

    async def stream(self, model: str, question: str) -> AsyncIterator[str]:
        async with self.agent(model).run_stream(question) as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                yield piece


async def main() -> None:
    specialists = Specialists(base_url(__doc__))
    for model, answer in (await specialists.ask_all(QUESTIONS)).items():
        print(f"{model}: {answer}")
    print("streamed: ", end="")
    async for piece in specialists.stream("spell", QUESTIONS["spell"]):
        print(piece, end="", flush=True)
    print(f"\nstructured: {await specialists.command(ORDER)!r}")
    print(f"with its reading: {await specialists.with_sensor(WARMTH)}")


if __name__ == "__main__":
    asyncio.run(main())
