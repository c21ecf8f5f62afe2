"""The ReAct agent of examples/agents with LangGraph: a node for each specialist, and one context for all.

    make serve SPEC=examples/agents/cluster.yaml
    python examples/integrations/langchain_agent.py --base-url http://127.0.0.1:8000/v1

What it says to whom is in `agent_parts.py`.
"""

import asyncio
import os
import uuid
from operator import add
from typing import Annotated, TypedDict

from agent_parts import (
    MOST_STEPS,
    NEXT,
    OPENING,
    TASKS,
    Step,
    first_question,
    parse_reading,
    parse_step,
    show,
)
from house import base_url
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

# Nothing goes to LangSmith, also where the environment asks for it.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"


# docs: start
class State(TypedDict):
    """One task's. What a node returns is appended to `messages` and `log`."""

    question: str
    messages: Annotated[list[AnyMessage], add]
    step: Step | None
    plans: Annotated[int, add]
    log: Annotated[list[str], add]


class Agent:
    def __init__(self, base_url: str) -> None:
        # One session for all models and all tasks: they share the document.
        session = {"x-heliostat-session": uuid.uuid4().hex}
        self._models = {
            name: ChatOpenAI(
                model=name, base_url=base_url, api_key="none", temperature=0, default_headers=session
            )
            for name in ("plan", "read", "math", "check")
        }

    async def ask(self, model: str, state: State, question: str) -> tuple[list[AnyMessage], str]:
        """The question and its answer, which stay in the context, and the answer's text."""
        asked = HumanMessage(question)
        answer = await self._models[model].ainvoke([*state["messages"], asked])
        return [asked, answer], answer.text

    async def plan(self, state: State) -> dict:
        messages, text = await self.ask("plan", state, state["question"])
        step = parse_step(text)
        told = f"{step.thought} -> {step.action} {step.argument}" if step else f"no step: {text!r}"
        return {"messages": messages, "step": step, "plans": 1, "log": [told], "question": NEXT}

    async def read(self, state: State) -> dict:
        messages, text = await self.ask("read", state, f"What is the {state['step'].argument} at?")
        return {"messages": messages, "log": [text]}

    async def check(self, state: State) -> dict:
        value = parse_reading(state["messages"][-1].text)
        question = f"Is the {state['step'].argument} at {value}?"
        messages, text = await self.ask("check", state, question)
        return {"messages": messages, "log": [f"checked: {text}"]}

    async def math(self, state: State) -> dict:
        messages, text = await self.ask("math", state, f"What is {state['step'].argument}?")
        return {"messages": messages, "log": [text]}

    def graph(self) -> CompiledStateGraph:
        graph = StateGraph(State)
        for node in (self.plan, self.read, self.check, self.math):
            graph.add_node(node.__name__, node)
        graph.add_edge(START, "plan")
        graph.add_conditional_edges("plan", after_plan, ["read", "math", END])
        graph.add_conditional_edges("read", after_read, ["check", "plan"])
        graph.add_edge("check", "plan")
        graph.add_edge("math", "plan")
        return graph.compile()


def after_plan(state: State) -> str:
    step = state["step"]
    if step is None or state["plans"] == MOST_STEPS:
        return END
    return {"read": "read", "add": "math", "finish": END}[step.action]


def after_read(state: State) -> str:
    return "plan" if parse_reading(state["messages"][-1].text) == "none" else "check"


# docs: end


async def solve(graph: CompiledStateGraph, task: str) -> tuple[str, list[str]]:
    started = State(
        question=first_question(task), messages=[SystemMessage(OPENING)], step=None, plans=0, log=[]
    )
    ended = await graph.ainvoke(started)
    step = ended["step"]
    return step.argument if step and step.action == "finish" else "", ended["log"]


async def main() -> None:
    graph = Agent(base_url(__doc__)).graph()
    for task, solved in zip(
        TASKS, await asyncio.gather(*(solve(graph, task) for task in TASKS)), strict=True
    ):
        show(task, *solved)


if __name__ == "__main__":
    asyncio.run(main())
