"""What the programs of this folder ask about: one context, four questions, a schema, a tool.

All of it is in the words of the quickstart's tiny models; a real house would speak English.
"""

import argparse
import os
from typing import Literal

from pydantic import BaseModel, Field

CONTEXT = "One house: hall, bath, attic. Be brief."
QUESTIONS = {
    "base": "reverse lamp",
    "home": "turn my lamp to 40",
    "mirror": "mirror lamp",
    "spell": "spell lamp",
}
"""Each specialist's question over the context, by the model's name."""

ORDER = "turn my lamp to 40"
WARMTH = "how warm is it?"

SHORT = {"x-heliostat-expected-tokens": "16"}
"""A hint to the router, for one request: its answer is short."""

Room = Literal["hall", "bath", "attic"]


class Command(BaseModel):
    """What the house is to do."""

    verb: Literal["set", "get", "add"]
    device: Literal["lamp", "door", "oven"]
    value: int = Field(ge=0, le=99)


def sensor(room: Room) -> str:
    """Read the sensor of a room."""
    print(f"sensor: {room}")
    return {"hall": "copy warm", "bath": "copy mild", "attic": "copy cold"}[room]


def base_url(about: str | None) -> str:
    """Where the cluster is: `--base-url`, or OPENAI_BASE_URL, or the quickstart's place."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    parser.add_argument("--base-url", default=default, help="default: OPENAI_BASE_URL, or %(default)s")
    url: str = parser.parse_args().base_url
    return url
