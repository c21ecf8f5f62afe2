"""The ReAct agent of react.py with LangChain: a graph of LangGraph with a node for each specialist.

.venv/integrations/bin/python examples/agents/with_langgraph.py --base-url http://127.0.0.1:8000/v1
"""

import argparse
import asyncio
import os
import sys
import uuid
from operator import add
from typing import Annotated, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from openai import OpenAIError
from words import (
    HOUSE,
    MOST_STEPS,
    MOST_TOKENS,
    SYSTEM,
    TASKS,
    Step,
    api_url,
    next_question,
    parse_reading,
    parse_step,
    verdict,
)

# Nothing goes to LangSmith, also where the environment asks for it.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"


class State(TypedDict):
    """One task's. What a node returns is appended to `messages` and `log`, and counted in `plans`."""

    task: str
    messages: Annotated[list[AnyMessage], add]
    log: Annotated[str, add]
    plans: Annotated[int, add]
    step: Step | None


class Agent:
    """The nodes, and the models that they ask."""

    def __init__(self, base_url: str) -> None:
        # One session for all models and all tasks: they share the document.
        session = {"x-heliostat-session": uuid.uuid4().hex}
        self._models = {
            name: ChatOpenAI(
                model=name,
                base_url=base_url,
                api_key="none",
                temperature=0,
                max_tokens=MOST_TOKENS,
                default_headers=session,
                extra_body={"chat_template_kwargs": {"enable_thinking": name == "check"}},
            )
            for name in ("plan", "read", "math", "check")
        }

    async def ask(self, model: str, state: State, question: str) -> tuple[list[AnyMessage], str]:
        """The question and its answer, which stay in the context, and the answer's text."""
        asked = HumanMessage(question)
        answer = await self._models[model].ainvoke([*state["messages"], asked])
        return [asked, answer], answer.text

    async def plan(self, state: State) -> dict[str, object]:
        messages, text = await self.ask("plan", state, next_question(state["task"]))
        step = parse_step(text)
        told = f"{step.thought} -> {step.action} {step.argument}" if step else f"no step: {text!r}"
        return {"messages": messages, "log": f"\n  {told}", "plans": 1, "step": step}

    async def read(self, state: State) -> dict[str, object]:
        messages, text = await self.ask("read", state, f"What is the {argument(state)} at?")
        return {"messages": messages, "log": f" -> {text}"}

    async def check(self, state: State) -> dict[str, object]:
        value = parse_reading(state["messages"][-1].text)
        messages, text = await self.ask("check", state, f"Is the {argument(state)} at {value}?")
        return {"messages": messages, "log": f" ({verdict(text)})"}

    async def math(self, state: State) -> dict[str, object]:
        messages, text = await self.ask("math", state, f"What is {argument(state)}?")
        return {"messages": messages, "log": f" -> {text}"}

    def graph(self) -> CompiledStateGraph:
        """Which node comes after which."""
        graph = StateGraph(State)
        for node in (self.plan, self.read, self.check, self.math):
            graph.add_node(node.__name__, node)
        graph.add_edge(START, "plan")
        graph.add_conditional_edges("plan", after_plan, ["read", "math", END])
        graph.add_conditional_edges("read", after_read, ["check", "plan", END])
        graph.add_conditional_edges("check", again, ["plan", END])
        graph.add_conditional_edges("math", again, ["plan", END])
        return graph.compile()


def argument(state: State) -> str:
    """Of the step that the planner wants."""
    assert state["step"]
    return state["step"].argument


def after_plan(state: State) -> str:
    return {"read": "read", "add": "math", "finish": END}[state["step"].action] if state["step"] else END


def after_read(state: State) -> str:
    return again(state) if parse_reading(state["messages"][-1].text) == "none" else "check"


def again(state: State) -> str:
    return "plan" if state["plans"] < MOST_STEPS else END


async def solve(graph: CompiledStateGraph, task: str) -> str:
    """The task, its answer, and the way there."""
    context = SystemMessage(f"{SYSTEM}\n\n{HOUSE.read_text().strip()}")
    ended = await graph.ainvoke(State(task=task, messages=[context], log="", plans=0, step=None))
    step = ended["step"]
    answer = step.argument if step and step.action == "finish" else "gave up"
    return f"{task}: {answer}{ended['log']}"


async def main() -> None:
    """All tasks at once."""
    parser = argparse.ArgumentParser(description="A ReAct agent with four specialists, as a graph.")
    parser.add_argument("--base-url", type=api_url, default="http://127.0.0.1:8000/v1")
    graph = Agent(parser.parse_args().base_url).graph()
    try:
        print(*await asyncio.gather(*(solve(graph, task) for task in TASKS)), sep="\n")
    except OpenAIError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    asyncio.run(main())
