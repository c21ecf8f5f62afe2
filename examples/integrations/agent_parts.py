"""What the agents of this folder share, and is no framework's: words, tasks, and how a step is read.

It is the ReAct agent of `examples/agents/react.py` (arXiv 2210.03629): `plan` names the next step, `read` and
`math` carry it out, `check` looks over what was read, and all see the document and what was said so far.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

DOCUMENT = (Path(__file__).parents[1] / "agents" / "house.txt").read_text().strip()
SYSTEM = "Plan in one line."
OPENING = f"{SYSTEM}\n\n{DOCUMENT}"
"""The system message of every task: the context that all models and all tasks share."""

TASKS = ("the lamp and the pump", "the door and the bell", "the oven and the gate")
MOST_STEPS = 6
NEXT = "What next?"


class Step(NamedTuple):
    """What the planner wants."""

    thought: str
    action: str
    argument: str


def first_question(task: str) -> str:
    return f"Task: {task} together. {NEXT}"


def parse_step(text: str) -> Step | None:
    """`Thought: … Action: read lamp`, or None if it is of another form."""
    found = re.search(r"Thought:\s*(.*?)\.?\s*Action:\s*(read|add|finish)\s+([^\n.]+)", text, re.DOTALL)
    return Step(*(part.strip() for part in found.groups())) if found else None


def parse_reading(text: str) -> str:
    """The value of `lamp: 40`, or `none`."""
    found = re.search(r"\d+", text)
    return found.group() if found else "none"


def show(task: str, answer: str, log: Sequence[str]) -> None:
    print(f"{task}: {answer or 'gave up'}")
    print("\n".join(f"  {line}" for line in log))
