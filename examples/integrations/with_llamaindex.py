"""LlamaIndex over Heliostat: four specialists over one context, a stream, a schema and a tool.

    pip install llama-index-llms-openai-like
    python examples/integrations/with_llamaindex.py --base-url http://127.0.0.1:8000/v1

What it asks is in `house.py`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator

from house import CONTEXT, ORDER, QUESTIONS, SHORT, WARMTH, Command, base_url, sensor
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


# docs: start
def over_context(question: str) -> list[ChatMessage]:
    return [ChatMessage(CONTEXT, role="system"), ChatMessage(question, role="user")]


class Specialists:
    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        # One session for all that is asked over one context.
        self._session = {"x-heliostat-session": uuid.uuid4().hex}

    def llm(self, model: str) -> OpenAILike:
        return OpenAILike(
            model=model,
            api_base=self._base_url,
            api_key="none",
            temperature=0,
            context_window=2048,
            default_headers=self._session,
            is_chat_model=True,  # otherwise it asks /v1/completions, without the chat template
            is_function_calling_model=True,
            should_use_structured_outputs=True,  # by response_format, guided, and not by a tool
            strict=True,
        )

    async def ask(self, model: str, question: str) -> str:
        answer = await self.llm(model).achat(over_context(question), extra_headers=SHORT)
        return answer.message.content or ""

    async def command(self, question: str) -> Command:
        answer = await self.llm("home").as_structured_llm(Command).achat(over_context(question))
        return answer.raw

    async def with_sensor(self, question: str) -> str:
        llm, read = self.llm("base"), FunctionTool.from_defaults(sensor)
        messages = over_context(question)
        called = await llm.achat_with_tools([read], chat_history=messages, tool_choice="sensor")
        messages.append(called.message)
        for call in llm.get_tool_calls_from_response(called):
            result = str(await read.acall(**call.tool_kwargs))
            messages.append(
                ChatMessage(result, role="tool", additional_kwargs={"tool_call_id": call.tool_id})
            )
        return (await llm.achat(messages)).message.content or ""

    # docs: end

    async def ask_all(self, questions: dict[str, str]) -> dict[str, str]:
        answers = await asyncio.gather(*(self.ask(*each) for each in questions.items()))
        return dict(zip(questions, answers, strict=True))

    async def stream(self, model: str, question: str) -> AsyncIterator[str]:
        async for chunk in await self.llm(model).astream_chat(over_context(question)):
            yield chunk.delta or ""


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
