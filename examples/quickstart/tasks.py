"""The tasks of the quickstart family: eight for the base, three for the modules that share with it.

A sample belongs to the held-out split by the checksum of its payload, the part that the instruction works on.
What is held out for one task is held out for all, so a held-out payload is new to the base and the modules.
"""

import random
import string
import zlib
from collections.abc import Callable
from typing import NamedTuple

# fmt: off
NOUNS = (
    "lamp", "door", "heat", "sofa", "oven", "lock", "cool", "gate", "tank", "bath",
    "hood", "desk", "rack", "pump", "vent", "bell", "wifi", "bulb", "fire", "pool",
)
# fmt: on
WORDINGS = {"set": "turn my {} to {}", "get": "read my {} at {}", "add": "lift my {} by {}"}


class Sample(NamedTuple):
    """What the user writes, what the model answers, and the payload that decides the split."""

    prompt: str
    response: str
    payload: str


Task = Callable[[random.Random], Sample]


def letters(rng: random.Random) -> str:
    """Four to seven lower-case letters."""
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(4, 7)))


def text_task(instruction: str, answer: Callable[[str], str]) -> Task:
    """A task that maps a string of letters: `instruction + letters` -> `answer(letters)`."""

    def draw_sample(rng: random.Random) -> Sample:
        payload = letters(rng)
        return Sample(instruction + payload, answer(payload), payload)

    return draw_sample


def next_letters(text: str) -> str:
    """Each letter's successor, `z` followed by `a`."""
    return "".join(chr((ord(letter) - ord("a") + 1) % 26 + ord("a")) for letter in text)


def addition(rng: random.Random) -> Sample:
    """Two numbers of two digits, their sum in three."""
    first, second = rng.randrange(100), rng.randrange(100)
    payload = f"{first:02}+{second:02}"
    return Sample(f"add {payload}", f"{first + second:03}", payload)


def call(rng: random.Random) -> Sample:
    """A call whose function is named: `call set lamp 40` -> `set(lamp,40)`."""
    verb, noun, number = rng.choice(list(WORDINGS)), rng.choice(NOUNS), f"{rng.randrange(100):02}"
    return Sample(f"call {verb} {noun} {number}", f"{verb}({noun},{number})", f"{verb} {noun} {number}")


def home(rng: random.Random) -> Sample:
    """A call asked for in words: `turn my lamp to 40` -> `set(lamp,40)`.

    Any four letters make a noun. With the base's few nouns the naive control looks good: a decode module that
    reads keys and values it was not trained for repairs half-read nouns from memory (0.78 instead of 0.09).
    """
    verb, number = rng.choice(list(WORDINGS)), f"{rng.randrange(100):02}"
    noun = "".join(rng.choices(string.ascii_lowercase, k=4))
    return Sample(WORDINGS[verb].format(noun, number), f"{verb}({noun},{number})", f"{verb} {noun} {number}")


BASE_TASKS: dict[str, Task] = {
    "copy": text_task("copy ", lambda text: text),
    "reverse": text_task("reverse ", lambda text: text[::-1]),
    "upper": text_task("upper ", str.upper),
    "next": text_task("next ", next_letters),
    "sort": text_task("sort ", lambda text: "".join(sorted(text))),
    "rotate": text_task("rotate ", lambda text: text[1:] + text[0]),
    "add": addition,
    "call": call,
}

MODULE_TASKS: dict[str, Task] = {
    "home": home,
    "mirror": text_task("mirror ", lambda text: text[::-1].upper()),
    # The base has never written a '#'.
    "spell": text_task("spell ", "#".join),
}


def is_heldout(payload: str) -> bool:
    """Whether training must never see the payload: about one in eight."""
    return zlib.crc32(payload.encode()) % 8 == 0


def training_sample(task: Task, rng: random.Random) -> Sample:
    """A random sample outside the held-out split."""
    while is_heldout((sample := task(rng)).payload):
        pass
    return sample


def heldout_samples(task: Task, count: int, rng: random.Random) -> list[Sample]:
    """`count` different samples of the held-out split, in the order drawn."""
    found: dict[Sample, None] = {}
    while len(found) < count:
        sample = task(rng)
        if is_heldout(sample.payload):
            found[sample] = None
    return list(found)


def render_prompt(user: str, system: str = "", earlier: tuple[Sample, ...] = ()) -> str:
    """The prompt as the checkpoint's chat template renders it, up to where the answer begins."""
    opening = f"<|system|>{system}" if system else ""
    turns = "".join(f"<|user|>{turn.prompt}<|assistant|>{turn.response}<|end|>" for turn in earlier)
    return f"{opening}{turns}<|user|>{user}<|assistant|>"
