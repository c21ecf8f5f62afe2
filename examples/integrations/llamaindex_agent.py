"""The ReAct agent of examples/agents as a LlamaIndex workflow: a step for each specialist, one context.

    make serve SPEC=examples/agents/cluster.yaml
    python examples/integrations/llamaindex_agent.py --base-url http://127.0.0.1:8000/v1

What it says to whom is in `agent_parts.py`.
"""

import asyncio
import uuid

from agent_parts import MOST_STEPS, NEXT, OPENING, TASKS, first_question, parse_reading, parse_step, show
from house import base_url
from llama_index.core.llms import ChatMessage
from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step
from llama_index.llms.openai_like import OpenAILike


# docs: start
class Task(StartEvent):
    task: str


class Plan(Event):
    question: str


class Read(Event):
    thing: str


class Check(Event):
    thing: str
    value: str


class Add(Event):
    numbers: str


class Agent(Workflow):
    """Runs one task; `messages` is its context, which grows with each question and answer."""

    def __init__(self, models: dict[str, OpenAILike]) -> None:
        super().__init__(timeout=60)
        self._models = models
        self._plans = 0
        self.messages = [ChatMessage(OPENING, role="system")]
        self.log: list[str] = []

    async def ask(self, model: str, question: str) -> str:
        self.messages.append(ChatMessage(question, role="user"))
        answer = await self._models[model].achat(self.messages)
        self.messages.append(answer.message)
        return answer.message.content or ""

    @step
    async def begin(self, event: Task) -> Plan:
        return Plan(question=first_question(event.task))

    @step
    async def plan(self, event: Plan) -> Read | Add | StopEvent:
        text = await self.ask("plan", event.question)
        self._plans += 1
        wanted = parse_step(text)
        if wanted is None:
            self.log.append(f"no step: {text!r}")
            return StopEvent(result="")
        self.log.append(f"{wanted.thought} -> {wanted.action} {wanted.argument}")
        if wanted.action == "finish" or self._plans == MOST_STEPS:
            return StopEvent(result=wanted.argument if wanted.action == "finish" else "")
        return Read(thing=wanted.argument) if wanted.action == "read" else Add(numbers=wanted.argument)

    @step
    async def read(self, event: Read) -> Check | Plan:
        text = await self.ask("read", f"What is the {event.thing} at?")
        self.log.append(text)
        value = parse_reading(text)
        return Plan(question=NEXT) if value == "none" else Check(thing=event.thing, value=value)

    @step
    async def check(self, event: Check) -> Plan:
        text = await self.ask("check", f"Is the {event.thing} at {event.value}?")
        self.log.append(f"checked: {text}")
        return Plan(question=NEXT)

    @step
    async def add(self, event: Add) -> Plan:
        self.log.append(await self.ask("math", f"What is {event.numbers}?"))
        return Plan(question=NEXT)


def specialists(base_url: str) -> dict[str, OpenAILike]:
    # One session for all models and all tasks: they share the document.
    session = {"x-heliostat-session": uuid.uuid4().hex}
    return {
        model: OpenAILike(
            model=model,
            api_base=base_url,
            api_key="none",
            temperature=0,
            default_headers=session,
            is_chat_model=True,
        )
        for model in ("plan", "read", "math", "check")
    }


# docs: end


async def main() -> None:
    models = specialists(base_url(__doc__))
    agents = [Agent(models) for _ in TASKS]
    answers = await asyncio.gather(*(agent.run(task=task) for agent, task in zip(agents, TASKS, strict=True)))
    for task, answer, agent in zip(TASKS, answers, agents, strict=True):
        show(task, answer, agent.log)


if __name__ == "__main__":
    asyncio.run(main())
