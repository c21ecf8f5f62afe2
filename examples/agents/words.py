"""What the agents of this folder say, and how they read what they are told. No client is imported here."""

import re
from pathlib import Path
from typing import NamedTuple

HOUSE = Path(__file__).parent / "house.txt"
# Larger models want to be told the form, as in: "Plan in one line as Thought: a few words. Action: read
# thing, or add value+value, or finish value." These have learned it; a long instruction confuses them.
SYSTEM = "Plan in one line."
TASKS = ("the lamp and the pump", "the door and the bell", "the oven and the gate")
MOST_STEPS = 6
MOST_TOKENS = 256


def api_url(text: str) -> str:
    """An OpenAI client's base URL, with the `/v1` that is easily forgotten."""
    return f"{text.rstrip('/').removesuffix('/v1')}/v1"


class Step(NamedTuple):
    """What the planner wants."""

    thought: str
    action: str
    argument: str


def next_question(task: str) -> str:
    """The planner's, before each step: it sees what was said since."""
    return f"Task: {task} together. What next?"


def parse_step(text: str) -> Step | None:
    """`Thought: … Action: read lamp`, or None if it is of another form."""
    found = re.search(r"Thought:\s*(.*?)\.?\s*Action:\s*(read|add|finish)\s+([^\n.]+)", text, re.DOTALL)
    return Step(*(part.strip() for part in found.groups())) if found else None


def parse_reading(text: str) -> str:
    """The value of `lamp: 40`, or `none`."""
    found = re.search(r"\d+", text)
    return found.group() if found else "none"


def says_yes(text: str) -> bool:
    """Whether an answer says yes, after its thought if it has one."""
    return text.rpartition("</think>")[2].strip().lower().startswith("yes")


def verdict(text: str) -> str:
    """What a log says of a reading that `check` has looked at."""
    return "checked" if says_yes(text) else "doubtful"
