"""The `openai` client over Heliostat: four specialists over one context, a stream, a schema and a tool.

    pip install openai
    python examples/integrations/with_openai.py --base-url http://127.0.0.1:8000/v1

What it asks is in `house.py`.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator

from house import CONTEXT, ORDER, QUESTIONS, SHORT, WARMTH, Command, base_url, sensor
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

# docs: start
SENSOR: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "sensor",
        "description": "Read the sensor of a room.",
        "strict": True,  # with some of vLLM's tool parsers, arguments fit the schema only so
        "parameters": {
            "type": "object",
            "properties": {"room": {"enum": ["hall", "bath", "attic"]}},
            "required": ["room"],
            "additionalProperties": False,
        },
    },
}


def connect(base_url: str) -> AsyncOpenAI:
    # One session for all that is asked over one context.
    session = {"x-heliostat-session": uuid.uuid4().hex}
    return AsyncOpenAI(base_url=base_url, api_key="none", default_headers=session)


def over_context(question: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "system", "content": CONTEXT}, {"role": "user", "content": question}]


async def ask(client: AsyncOpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    answer = await client.chat.completions.create(
        model=model, messages=messages, temperature=0, extra_headers=SHORT
    )
    return answer.choices[0].message.content or ""


async def command(client: AsyncOpenAI, question: str) -> Command | None:
    answer = await client.chat.completions.parse(
        model="home", messages=over_context(question), temperature=0, response_format=Command
    )
    return answer.choices[0].message.parsed


async def with_sensor(client: AsyncOpenAI, question: str) -> str:
    messages = over_context(question)
    answer = await client.chat.completions.create(
        model="base",
        messages=messages,
        temperature=0,
        tools=[SENSOR],
        tool_choice={"type": "function", "function": {"name": "sensor"}},
    )
    called = answer.choices[0].message
    messages.append(called.to_dict())
    for call in called.tool_calls or ():
        result = sensor(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return await ask(client, "base", messages)


# docs: end


async def ask_all(client: AsyncOpenAI, questions: dict[str, str]) -> dict[str, str]:
    asked = (ask(client, model, over_context(question)) for model, question in questions.items())
    return dict(zip(questions, await asyncio.gather(*asked), strict=True))


async def stream(client: AsyncOpenAI, model: str, question: str) -> AsyncIterator[str]:
    chunks = await client.chat.completions.create(
        model=model, messages=over_context(question), temperature=0, stream=True
    )
    async for chunk in chunks:
        for choice in chunk.choices:
            yield choice.delta.content or ""


async def main() -> None:
    client = connect(base_url(__doc__))
    for model, answer in (await ask_all(client, QUESTIONS)).items():
        print(f"{model}: {answer}")
    print("streamed: ", end="")
    async for piece in stream(client, "spell", QUESTIONS["spell"]):
        print(piece, end="", flush=True)
    print(f"\nstructured: {await command(client, ORDER)!r}")
    print(f"with its reading: {await with_sensor(client, WARMTH)}")


if __name__ == "__main__":
    asyncio.run(main())
