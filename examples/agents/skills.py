"""What the agents' family learns: a list of readings, and questions about it.

A list has one reading a line, `lamp: 40`; a thing may be listed again further down. The base answers terse
questions (`get lamp`), the specialists what a person would ask. A sample belongs to the held-out split by
the checksum of its list: no held-out list was seen in training, by the base or by a specialist.
"""

import random
import zlib
from collections.abc import Callable
from typing import NamedTuple

# fmt: off
THINGS = (
    "lamp", "door", "heat", "sofa", "oven", "lock", "cool", "gate", "tank", "bath",
    "hood", "desk", "rack", "pump", "vent", "bell", "wifi", "bulb", "fire", "pool",
)
KOREAN = (
    "전등", "대문", "난방", "소파", "오븐", "열쇠", "냉방", "현관", "물통", "욕조",
    "후드", "책상", "선반", "펌프", "환기", "벨", "전구", "난로", "수조", "창문",
)
# fmt: on
NONE = "none"
LISTED_AGAIN = 0.3
ABSENT = 0.15


class Turn(NamedTuple):
    """A question, its answer, and what is thought before it where thinking is on."""

    question: str
    answer: str
    thought: str = ""


class Readings(NamedTuple):
    """A list of readings, in the order listed."""

    entries: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """One reading a line."""
        return "\n".join(f"{thing}: {value}" for thing, value in self.entries)

    @property
    def things(self) -> list[str]:
        """Each thing once."""
        return list(dict(self.entries))

    def first(self, thing: str) -> str:
        """The value that is listed first, or `none`."""
        return next((value for name, value in self.entries if name == thing), NONE)

    def last(self, thing: str) -> str:
        """The value that is listed last, or `none`."""
        return dict(self.entries).get(thing, NONE)

    def absent(self, rng: random.Random) -> str:
        """Something that is not listed."""
        names = KOREAN if self.things[0] in KOREAN else THINGS
        return rng.choice([thing for thing in names if thing not in self.things])

    def some(self, rng: random.Random) -> str:
        """Mostly something that is listed."""
        return self.absent(rng) if rng.random() < ABSENT else rng.choice(self.things)


Skill = Callable[[Readings, random.Random], Turn]


def draw_readings(rng: random.Random, least: int, most: int, things: tuple[str, ...] = THINGS) -> Readings:
    """So many readings of two digits; in some lists one thing stands twice, with another value."""
    names = rng.sample(things, rng.randint(least, most))
    if len(names) > 2 and rng.random() < LISTED_AGAIN:
        names[1] = names[0]
        rng.shuffle(names)
    values = rng.sample(range(100), len(names))
    return Readings(tuple((name, f"{value:02}") for name, value in zip(names, values, strict=True)))


def is_heldout(readings: Readings) -> bool:
    """Whether training must never see the list: about one in eight."""
    return zlib.crc32(readings.text.encode()) % 8 == 0


def yes_no(true: bool) -> str:
    return "yes" if true else "no"


def total(first: str, second: str) -> str:
    """The sum of two numbers of two digits, in three."""
    return f"{int(first) + int(second):03}"


def claim(readings: Readings, rng: random.Random) -> tuple[str, str]:
    """A thing, and a value that it has, by its last reading, half of the time."""
    thing = rng.choice(readings.things)
    if rng.random() < 0.5:
        return thing, readings.last(thing)
    return thing, rng.choice([value for _, value in readings.entries] + [f"{rng.randrange(100):02}"])


def both(readings: Readings, rng: random.Random) -> tuple[str, str, str, str]:
    """Two things of the list, the sum of their last readings, and how one comes to it."""
    one, two = rng.sample(readings.things, 2)
    first, second = readings.last(one), readings.last(two)
    return one, two, total(first, second), f"{one}: {first}\n{two}: {second}\n{first}+{second}"


def get(readings: Readings, rng: random.Random) -> Turn:
    """The first reading."""
    thing = readings.some(rng)
    return Turn(f"get {thing}", f"{thing}: {readings.first(thing)}")


def last(readings: Readings, rng: random.Random) -> Turn:
    """The last reading."""
    thing = readings.some(rng)
    return Turn(f"last {thing}", f"{thing}: {readings.last(thing)}")


def has(readings: Readings, rng: random.Random) -> Turn:
    """Is it listed?"""
    listed = rng.random() < 0.5
    thing = rng.choice(readings.things) if listed else readings.absent(rng)
    thought = f"{thing}: {readings.last(thing)}" if rng.random() < 0.5 else ""
    return Turn(f"has {thing}", yes_no(listed), thought)


def compare(readings: Readings, rng: random.Random) -> Turn:
    """Is that its last reading?"""
    thing, value = claim(readings, rng)
    thought = f"{thing}: {readings.last(thing)}" if rng.random() < 0.5 else ""
    return Turn(f"is {thing} {value}", yes_no(value == readings.last(thing)), thought)


def add(readings: Readings, rng: random.Random) -> Turn:
    """A sum that has nothing to do with the list."""
    first, second = f"{rng.randrange(100):02}", f"{rng.randrange(100):02}"
    return Turn(f"add {first}+{second}", total(first, second))


def combine(readings: Readings, rng: random.Random) -> Turn:
    """The sum of two last readings."""
    one, two, answer, thought = both(readings, rng)
    return Turn(f"sum {one} {two}", answer, thought if rng.random() < 0.7 else "")


def korean_get(readings: Readings, rng: random.Random) -> Turn:
    """The first reading of a Korean list."""
    thing = readings.some(rng)
    return Turn(f"{thing}?", f"{thing}: {readings.first(thing)}")


def repeat(readings: Readings, rng: random.Random) -> Turn:
    """The whole list, in any order.

    Which reading comes next is chance, but each value must be looked up, many times a sequence: from this a
    model learns to read.
    """
    lines = readings.text.split("\n")
    rng.shuffle(lines)
    return Turn("list", "\n".join(lines))


def name(readings: Readings, rng: random.Random) -> Turn:
    """What has that value?"""
    thing, value = rng.choice(readings.entries)
    return Turn(f"name {value}", thing)


def pick(readings: Readings, rng: random.Random) -> Turn:
    """One of two things that the question names."""
    things = rng.sample(THINGS, 2)
    place = rng.randrange(2)
    return Turn(f"{('first', 'second')[place]} {' '.join(things)}", things[place])


BASE_SKILLS: dict[str, tuple[Skill, float]] = {
    "get": (get, 0.18),
    "last": (last, 0.14),
    "has": (has, 0.12),
    "is": (compare, 0.14),
    "add": (add, 0.26),
    "sum": (combine, 0.16),
}
"""Each with its share of the turns."""
NAMING_SKILLS: dict[str, tuple[Skill, float]] = {"name": (name, 0.2), "pick": (pick, 0.3)}
"""Answers that are a thing without its colon, another token."""
KOREAN_ASKING: dict[str, tuple[Skill, float]] = {"korean": (korean_get, 0.7)}
KOREAN_SKILLS: dict[str, tuple[Skill, float]] = {**KOREAN_ASKING, "list": (repeat, 0.3)}
LOOKING_UP: dict[str, tuple[Skill, float]] = {"list": (repeat, 1.0)}
