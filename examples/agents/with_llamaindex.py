"""The ReAct agent of react.py with LlamaIndex: a workflow with a step for each specialist.

.venv/integrations-llamaindex/bin/python examples/agents/with_llamaindex.py --base-url http://127.0.0.1:8000/v1
"""

import argparse
import asyncio
import sys
import uuid

from llama_index.core.llms import ChatMessage
from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step
from llama_index.llms.openai_like import OpenAILike
from openai import OpenAIError
from words import (
    HOUSE,
    MOST_STEPS,
    MOST_TOKENS,
    SYSTEM,
    TASKS,
    api_url,
    next_question,
    parse_reading,
    parse_step,
    verdict,
)


class Plan(Event):
    """Time to think."""


class Read(Event):
    thing: str


class Check(Event):
    thing: str
    value: str


class Add(Event):
    numbers: str


class Agent(Workflow):
    """Runs one task. `messages` is its context, which grows with each question and answer."""

    def __init__(self, models: dict[str, OpenAILike], task: str) -> None:
        super().__init__(timeout=60)
        self._models = models
        self._task = task
        self._plans = 0
        self.messages = [ChatMessage(f"{SYSTEM}\n\n{HOUSE.read_text().strip()}", role="system")]
        self.log = ""

    async def ask(self, model: str, question: str) -> str:
        """The question and its answer stay in the context."""
        self.messages.append(ChatMessage(question, role="user"))
        answer = await self._models[model].achat(self.messages)
        self.messages.append(answer.message)
        return answer.message.content or ""

    @step
    async def plan(self, event: StartEvent | Plan) -> Read | Add | StopEvent:
        text = await self.ask("plan", next_question(self._task))
        self._plans += 1
        wanted = parse_step(text)
        if wanted is None:
            self.log += f"\n  no step: {text!r}"
            return StopEvent(result="")
        self.log += f"\n  {wanted.thought} -> {wanted.action} {wanted.argument}"
        if wanted.action == "finish":
            return StopEvent(result=wanted.argument)
        return Read(thing=wanted.argument) if wanted.action == "read" else Add(numbers=wanted.argument)

    @step
    async def read(self, event: Read) -> Check | Plan | StopEvent:
        text = await self.ask("read", f"What is the {event.thing} at?")
        self.log += f" -> {text}"
        value = parse_reading(text)
        return self.again() if value == "none" else Check(thing=event.thing, value=value)

    @step
    async def check(self, event: Check) -> Plan | StopEvent:
        text = await self.ask("check", f"Is the {event.thing} at {event.value}?")
        self.log += f" ({verdict(text)})"
        return self.again()

    @step
    async def add(self, event: Add) -> Plan | StopEvent:
        self.log += f" -> {await self.ask('math', f'What is {event.numbers}?')}"
        return self.again()

    def again(self) -> Plan | StopEvent:
        return Plan() if self._plans < MOST_STEPS else StopEvent(result="")


def specialists(base_url: str) -> dict[str, OpenAILike]:
    """One session for all models and all tasks: they share the document."""
    session = {"x-heliostat-session": uuid.uuid4().hex}
    return {
        name: OpenAILike(
            model=name,
            api_base=base_url,
            api_key="none",
            temperature=0,
            max_tokens=MOST_TOKENS,
            default_headers=session,
            is_chat_model=True,
            additional_kwargs={"extra_body": {"chat_template_kwargs": {"enable_thinking": name == "check"}}},
        )
        for name in ("plan", "read", "math", "check")
    }


async def main() -> None:
    """All tasks at once."""
    parser = argparse.ArgumentParser(description="A ReAct agent with four specialists, as a workflow.")
    parser.add_argument("--base-url", type=api_url, default="http://127.0.0.1:8000/v1")
    models = specialists(parser.parse_args().base_url)
    agents = {task: Agent(models, task) for task in TASKS}
    try:
        answers = await asyncio.gather(*(agent.run() for agent in agents.values()))
    except OpenAIError as error:
        sys.exit(str(error))
    for (task, agent), answer in zip(agents.items(), answers, strict=True):
        print(f"{task}: {answer or 'gave up'}{agent.log}")


if __name__ == "__main__":
    asyncio.run(main())
