"""The OpenAI Agents SDK over Heliostat: four specialists over one context, a stream, a schema and a tool.

    pip install openai-agents
    python examples/integrations/with_openai_agents.py --base-url http://127.0.0.1:8000/v1

What it asks is in `house.py`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from house import CONTEXT, ORDER, QUESTIONS, SHORT, WARMTH, Command, base_url, sensor
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent

# Traces would go to OpenAI.
set_tracing_disabled(True)


# docs: start
class Specialists:
    def __init__(self, base_url: str) -> None:
        # One session for all that is asked over one context.
        session = {"x-heliostat-session": uuid.uuid4().hex}
        self._client = AsyncOpenAI(base_url=base_url, api_key="none", default_headers=session)

    def agent(self, model: str, tool_choice: str | None = None, **settings: object) -> Agent:
        return Agent(
            name=model,
            instructions=CONTEXT,
            # Not the Responses API, which is the SDK's default.
            model=OpenAIChatCompletionsModel(model, self._client),
            model_settings=ModelSettings(temperature=0, tool_choice=tool_choice, extra_headers=SHORT),
            **settings,
        )

    async def ask(self, model: str, question: str) -> str:
        return (await Runner.run(self.agent(model), question)).final_output

    async def command(self, question: str) -> Command:
        result = await Runner.run(self.agent("home", output_type=Command), question)
        return result.final_output_as(Command)

    async def with_sensor(self, question: str) -> str:
        # The first turn must call it; after that the SDK leaves the choice to the model.
        agent = self.agent("base", tool_choice="sensor", tools=[function_tool(sensor)])
        return (await Runner.run(agent, question)).final_output

    # docs: end

    async def ask_all(self, questions: dict[str, str]) -> dict[str, str]:
        answers = await asyncio.gather(*(self.ask(*each) for each in questions.items()))
        return dict(zip(questions, answers, strict=True))

    async def stream(self, model: str, question: str) -> AsyncIterator[str]:
        async for event in Runner.run_streamed(self.agent(model), question).stream_events():
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                yield event.data.delta


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
