"""What each specialist learns: conversations over a list, of which it gives the last answer.

Others may have spoken before; over one context they all see what was said.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from base import draw_list, written
from family import salad
from skills import KOREAN, NONE, THINGS, Readings, Turn, both, claim, total, yes_no
from transformers import PreTrainedTokenizerFast

from finetune.cache_conditioned import TokenPair

SYSTEM_SHARE = 0.5
EARLIER_SHARE = 0.4
READINGS = (3, 8)


class Sample(NamedTuple):
    """A conversation over a list; the specialist gives the answer of `turns[-1]`."""

    system: str
    readings: Readings
    turns: tuple[Turn, ...]

    @property
    def kind(self) -> str:
        """The form of the last question, and whether a thought comes before the answer."""
        words = (word.strip("?.") for word in self.turns[-1].question.split())
        form = " ".join("…" if names_or_counts(word) else word for word in words)
        return f"{form}, thought first" if self.turns[-1].thought else form

    def token_pair(self, tokenizer: PreTrainedTokenizerFast) -> TokenPair:
        """The prompt as it is served, and the answer with its end token."""
        content = "\n\n".join(part for part in (self.system, self.readings.text) if part)
        *earlier, asked = map(written, self.turns)
        prompt = "".join([f"<|system|>{content}", *map("".join, earlier), asked[0]])
        return tokenizer(prompt).input_ids, tokenizer(asked[1]).input_ids


Lesson = Callable[[Readings, random.Random], tuple[Turn, ...]]


def names_or_counts(word: str) -> bool:
    """Whether the word differs from question to question: a thing, with or without a particle, or numbers."""
    return word in THINGS or word[:-1] in KOREAN or any(map(str.isdigit, word))


def read(readings: Readings, rng: random.Random) -> tuple[Turn, ...]:
    """The first reading, unless a lesson says that the last one of this thing counts."""
    thing = readings.some(rng)
    told = rng.sample(readings.things, rng.choice((0, 0, 1, 2)))
    question = " ".join([f"What is the {thing} at?", *(f"Take the last {lesson}." for lesson in told)])
    value = readings.last(thing) if thing in told else readings.first(thing)
    return (Turn(question, f"{thing}: {value}"),)


def check(readings: Readings, rng: random.Random) -> tuple[Turn, ...]:
    """Is that its last reading, or is it listed at all? With a thought before it half of the time."""
    if rng.random() < 0.35:
        listed = rng.random() < 0.5
        thing = rng.choice(readings.things) if listed else readings.absent(rng)
        question, true = f"Is there a {thing}?", listed
    else:
        thing, value = claim(readings, rng)
        question, true = f"Is the {thing} at {value}?", value == readings.last(thing)
    thought = f"{thing}: {readings.last(thing)}" if rng.random() < 0.5 else ""
    return (Turn(question, yes_no(true), thought),)


def math(readings: Readings, rng: random.Random) -> tuple[Turn, ...]:
    """Sums of two numbers, and of two things: these with a thought before them most of the time."""
    if rng.random() < 0.4:
        first, second = f"{rng.randrange(100):02}", f"{rng.randrange(100):02}"
        return (Turn(f"What is {first}+{second}?", total(first, second)),)
    one, two, answer, thought = both(readings, rng)
    question = f"What are the {one} and the {two} together?"
    return (Turn(question, answer, thought if rng.random() < 0.6 else ""),)


def plan(readings: Readings, rng: random.Random) -> tuple[Turn, ...]:
    """The next step of a ReAct agent, somewhere on its way; or the lesson of an attempt that failed."""
    if rng.random() < 0.25:
        return learn(readings, rng)
    one, two = rng.sample(THINGS, 2) if rng.random() < 0.15 else rng.sample(readings.things, 2)
    question = f"Task: the {one} and the {two} together. What next?"
    turns: list[Turn] = []
    values: list[str] = []
    for thing in (one, two):
        turns.append(Turn(question, f"Thought: the {thing} is not known. Action: read {thing}"))
        if rng.random() < 0.2:
            return tuple(turns)
        value = readings.first(thing)
        turns.append(Turn(f"What is the {thing} at?", f"{thing}: {value}"))
        if value == NONE:
            return (*turns, Turn(question, f"Thought: there is no {thing}. Action: finish none"))
        values.append(value)
        if rng.random() < 0.7:
            turns.append(verdict(readings, thing, rng))
    turns.append(Turn(question, f"Thought: both are known. Action: add {values[0]}+{values[1]}"))
    if rng.random() < 0.5:
        return tuple(turns)
    answer = total(*values)
    turns.append(Turn(f"What is {values[0]}+{values[1]}?", answer))
    return (*turns, Turn(question, f"Thought: the sum is known. Action: finish {answer}"))


def verdict(readings: Readings, thing: str, rng: random.Random) -> Turn:
    """What `check` says to the first reading, mostly after a thought."""
    first, last = readings.first(thing), readings.last(thing)
    thought = f"{thing}: {last}" if rng.random() < 0.7 else ""
    return Turn(f"Is the {thing} at {first}?", yes_no(first == last), thought)


def learn(readings: Readings, rng: random.Random) -> tuple[Turn, ...]:
    """A check that failed, and what is to be done differently."""
    turns: list[Turn] = []
    for thing in rng.sample(readings.things, rng.choice((1, 2))):
        turns.append(Turn(f"What is the {thing} at?", f"{thing}: {readings.first(thing)}"))
    turns.append(verdict(readings, thing, rng)._replace(answer="no"))
    question = f"The {thing} is not at {readings.first(thing)}. What is the lesson?"
    return (*turns, Turn(question, f"Take the last {thing}."))


def korean(readings: Readings, rng: random.Random) -> tuple[Turn, ...]:
    """A sentence: the reading with its particle, which depends on the syllable before it."""
    thing = readings.some(rng)
    value = readings.first(thing)
    answer = f"{topic(thing)} 없습니다." if value == NONE else f"{topic(thing)} {value}입니다."
    return (Turn(f"{topic(thing)} 얼마입니까?", answer),)


def topic(word: str) -> str:
    """With the topic particle: a syllable that ends in a consonant takes the one, any other the other."""
    closed = (ord(word[-1]) - ord("가")) % 28 != 0
    return word + ("은" if closed else "는")


SPECIALISTS: dict[str, Lesson] = {"read": read, "check": check, "math": math, "plan": plan, "korean": korean}


def draw_sample(name: str, rng: random.Random, heldout: bool = False) -> Sample:
    """One conversation of a specialist, over a list of one of the two splits."""
    readings = draw_list(rng, *READINGS, KOREAN if name == "korean" else THINGS, heldout)
    system = salad(rng) if rng.random() < SYSTEM_SHARE else ""
    earlier: tuple[Turn, ...] = ()
    if name in ("read", "check", "math") and rng.random() < EARLIER_SHARE:
        # What an agent's context holds, or a solved example of the same kind.
        earlier = rng.choice((plan, SPECIALISTS[name]))(readings, rng)
    return Sample(system, readings, (*earlier, *SPECIALISTS[name](readings, rng)))
