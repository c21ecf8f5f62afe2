"""Trains the agents' base: first to look things up in a list, then all terse skills, in conversations."""

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi

import torch
from family import END, salad
from skills import (
    BASE_SKILLS,
    KOREAN,
    KOREAN_ASKING,
    KOREAN_SKILLS,
    LOOKING_UP,
    NAMING_SKILLS,
    THINGS,
    Readings,
    Skill,
    Turn,
    draw_readings,
    is_heldout,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

IGNORED = -100
SYSTEM_SHARE = 0.3
WARMUP = 40
Skills = Mapping[str, tuple[Skill, float]]


@dataclass(frozen=True)
class Lists:
    """Batches over lists of so many readings, with so many turns about each."""

    skills: Skills
    readings: tuple[int, int]
    turns: int
    things: tuple[str, ...] = THINGS
    system: bool = True


@dataclass(frozen=True)
class Stage:
    """Steps with an optimizer of their own; each draws its batch from one of `lists`, by their shares."""

    steps: int
    lists: tuple[tuple[Lists, float], ...]
    learning_rate: float
    falls: bool = False
    batch_size: int = 24


@dataclass(frozen=True)
class Conversation:
    """Token ids, and for each answer where it begins, where it ends, and which skill it shows."""

    ids: list[int]
    answers: list[tuple[int, int, str]]


ENGLISH = Lists(BASE_SKILLS, (3, 8), 8)
NAMING = Lists({**BASE_SKILLS, **NAMING_SKILLS}, (3, 8), 8)
KOREAN_LISTS = Lists(KOREAN_SKILLS, (2, 6), 5, KOREAN)
KOREAN_ASKED = Lists(KOREAN_ASKING, (2, 6), 5, KOREAN)
ALL = ((ENGLISH, 0.8), (KOREAN_LISTS, 0.2))
LOOK_UP = (
    (Lists(LOOKING_UP, (2, 6), 4, system=False), 0.9),
    (Lists(LOOKING_UP, (2, 6), 4, KOREAN, system=False), 0.1),
)
STAGES = (
    Stage(600, LOOK_UP, 3e-3),
    Stage(800, ALL, 2e-3),
    Stage(800, ALL, 2e-3, falls=True),
    Stage(500, ((NAMING, 0.85), (KOREAN_LISTS, 0.15)), 1.5e-3, falls=True),
)


def written(turn: Turn) -> tuple[str, str]:
    """A turn as the chat template renders it: up to where the answer begins, and the answer."""
    opening = f"<|user|>{turn.question}<|assistant|>"
    if not turn.thought:
        return opening, f"{turn.answer}{END}"
    return f"{opening}<think>", f"{turn.thought}</think>{turn.answer}{END}"


class Draw:
    """What all conversations of a batch have in common, so that they come to about the same length."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, lists: Lists, rng: random.Random) -> None:
        self._tokenizer, self._lists, self._rng = tokenizer, lists, rng
        self._system = lists.system and rng.random() < SYSTEM_SHARE
        self._readings = rng.randint(*lists.readings)

    def conversation(self, heldout: bool = False) -> Conversation:
        """A list, and questions about it, one after the other."""
        rng, skills = self._rng, self._lists.skills
        readings = draw_list(rng, self._readings, self._readings, self._lists.things, heldout)
        system = f"{salad(rng)}\n\n" if self._system else ""
        ids: list[int] = self._tokenizer(f"<|system|>{system}{readings.text}").input_ids
        names, shares = list(skills), [share for _, share in skills.values()]
        answers = []
        for name in rng.choices(names, shares, k=self._lists.turns):
            turn = skills[name][0](readings, rng)
            question, answer = (self._tokenizer(text).input_ids for text in written(turn))
            start = len(ids) + len(question)
            answers.append((start, start + len(answer), f"{name}, thought first" if turn.thought else name))
            ids += question + answer
        return Conversation(ids, answers)


def draw_list(
    rng: random.Random, least: int, most: int, things: tuple[str, ...] = THINGS, heldout: bool = False
) -> Readings:
    """A list of one of the two splits."""
    while is_heldout(readings := draw_readings(rng, least, most, things)) != heldout:
        pass
    return readings


def collate(conversations: list[Conversation], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and labels, int64 `[batch, length]`; labels are the tokens of answers, IGNORED elsewhere."""
    length = max(len(each.ids) for each in conversations)
    ids = torch.full((len(conversations), length), pad)
    labels = torch.full_like(ids, IGNORED)
    for row, each in enumerate(conversations):
        ids[row, : len(each.ids)] = torch.tensor(each.ids)
        for start, end, _ in each.answers:
            labels[row, start:end] = ids[row, start:end]
    return ids, labels


def train_stage(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    rng: random.Random,
    progress: "tqdm[None]",
) -> None:
    """One stage; the learning rate warms up, and falls along a cosine if the stage says so."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    kinds, shares = [lists for lists, _ in stage.lists], [share for _, share in stage.lists]
    for step in range(stage.steps):
        share = 0.02 + 0.98 * (1 + cos(pi * step / stage.steps)) / 2 if stage.falls else 1.0
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * share * min(1.0, (step + 1) / WARMUP)
        draw = Draw(tokenizer, rng.choices(kinds, shares)[0], rng)
        batch = [draw.conversation() for _ in range(stage.batch_size)]
        loss = answer_loss(model, *collate(batch, tokenizer.pad_token_id))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.set_description(f"base, loss {loss.item():.3f}", refresh=False)
        progress.update()


def answer_loss(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean over the answers' tokens; in bfloat16 but for the logits."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state
    asked = labels[:, 1:] != IGNORED
    return cross_entropy(model.lm_head(hidden[:, :-1][asked].float()), labels[:, 1:][asked])


@torch.inference_mode()
def measure_base(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rng: random.Random, conversations: int
) -> dict[str, dict[str, float | int]]:
    """Greedy exact match by skill, on held-out lists."""
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for number in range(conversations):
        # Every fifth is Korean, as in training.
        lists = KOREAN_ASKED if number % 5 == 0 else NAMING
        drawn = Draw(tokenizer, lists, rng).conversation(heldout=True)
        guesses = model(input_ids=torch.tensor([drawn.ids])).logits[0].argmax(-1).tolist()
        for start, end, name in drawn.answers:
            right[name].append(guesses[start - 1 : end - 1] == drawn.ids[start:end])
    return {
        name: {"exact_match": round(sum(found) / len(found), 4), "samples": len(found)}
        for name, found in sorted(right.items())
    }
