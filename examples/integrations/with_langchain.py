"""LangChain over Heliostat: four specialists over one context, a stream, a schema and a tool.

    pip install langchain-openai
    python examples/integrations/with_langchain.py --base-url http://127.0.0.1:8000/v1

What it asks is in `house.py`.
"""

import os
import uuid
from collections.abc import Iterator
from operator import itemgetter

from house import CONTEXT, ORDER, QUESTIONS, SHORT, WARMTH, Command, base_url, sensor
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

# Nothing goes to LangSmith, also where the environment asks for it.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"

# docs: start
OVER_CONTEXT = ChatPromptTemplate([("system", CONTEXT), ("user", "{question}")])


class Specialists:
    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        # One session for all that is asked over one context.
        self._session = {"x-heliostat-session": uuid.uuid4().hex}

    def model(self, name: str) -> ChatOpenAI:
        return ChatOpenAI(
            model=name,
            base_url=self._base_url,
            api_key="none",
            temperature=0,
            default_headers=self._session,
        )

    def asked(self, name: str) -> Runnable[dict[str, str], str]:
        return OVER_CONTEXT | self.model(name).bind(extra_headers=SHORT) | StrOutputParser()

    def command(self, question: str) -> Command:
        # By default the schema goes out as response_format, and decoding is guided by it.
        chain = OVER_CONTEXT | self.model("home").with_structured_output(Command)
        return chain.invoke({"question": question})

    def with_sensor(self, question: str) -> str:
        read = tool(sensor)
        messages = OVER_CONTEXT.format_messages(question=question)
        called = self.model("base").bind_tools([read], tool_choice="sensor", strict=True).invoke(messages)
        results = [read.invoke(call) for call in called.tool_calls]
        return self.model("base").invoke([*messages, called, *results]).text

    # docs: end

    def ask_all(self, questions: dict[str, str]) -> dict[str, str]:
        """All at once; questions and answers by the model's name."""
        chains = {name: {"question": itemgetter(name)} | self.asked(name) for name in questions}
        return RunnableParallel(chains).invoke(questions)

    def stream(self, name: str, question: str) -> Iterator[str]:
        return self.asked(name).stream({"question": question})


def main() -> None:
    specialists = Specialists(base_url(__doc__))
    for name, answer in specialists.ask_all(QUESTIONS).items():
        print(f"{name}: {answer}")
    print("streamed: ", end="")
    for piece in specialists.stream("spell", QUESTIONS["spell"]):
        print(piece, end="", flush=True)
    print(f"\nstructured: {specialists.command(ORDER)!r}")
    print(f"with its reading: {specialists.with_sensor(WARMTH)}")


if __name__ == "__main__":
    main()
