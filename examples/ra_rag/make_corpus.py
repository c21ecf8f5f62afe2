"""Make the corpus again: what six people wrote down about four houses; two of them took care.

    python examples/ra_rag/make_corpus.py > examples/ra_rag/corpus.json

A source leaves a reading out, has it right, or has one of two rumours that all careless sources have heard:
wrong answers agree with each other, as they do where sources copy.
"""

import json
import random

THINGS = (
    "lamp", "door", "heat", "sofa", "oven", "lock", "cool", "gate", "tank", "bath",
    "hood", "desk", "rack", "pump", "vent", "bell", "wifi", "bulb", "fire", "pool",
)  # fmt: skip
RIGHT = {"owner": 0.95, "janitor": 0.9, "neighbour": 0.35, "tenant": 0.35, "visitor": 0.35, "plumber": 0.35}
RUMOURS = 2
LISTED = 0.9
HOUSES = 4
THINGS_OF_A_HOUSE = 8
LABELLED = 10


def make(seed: int) -> dict[str, object]:
    """Documents by source and house; what to ask without labels; what to ask with the true value."""
    rng = random.Random(seed)
    sources: dict[str, dict[str, str]] = {name: {} for name in RIGHT}
    facts = []
    for number in range(1, HOUSES + 1):
        house = f"house {number}"
        things = rng.sample(THINGS, THINGS_OF_A_HOUSE)
        values = {thing: rng.sample([f"{n:02}" for n in range(100)], 1 + RUMOURS) for thing in things}
        facts += [{"house": house, "thing": thing, "value": values[thing][0]} for thing in things]
        for name, right in RIGHT.items():
            lines = [
                f"{thing}: {values[thing][0] if rng.random() < right else rng.choice(values[thing][1:])}"
                for thing in rng.sample(things, len(things))
                if rng.random() < LISTED
            ]
            sources[name][house] = "\n".join(lines)
    rng.shuffle(facts)
    unlabelled = [{"house": fact["house"], "thing": fact["thing"]} for fact in facts[LABELLED:]]
    return {"sources": sources, "unlabelled": unlabelled, "questions": facts[:LABELLED]}


if __name__ == "__main__":
    print(json.dumps(make(seed=0), indent=1))
