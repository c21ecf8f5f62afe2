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
    KOREAN_SKILLS,
    LOOKING_UP,
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
KOREAN_SHARE = 0.15
SYSTEM_SHARE = 0.3
Skills = Mapping[str, tuple[Skill, float]]


@dataclass(frozen=True)
class Stage:
    """Steps on conversations of so many turns over lists of so many readings."""

    steps: int
    skills: Skills
    readings: tuple[int, int]
    turns: int
    learning_rate: float
    batch_size: int = 24
    falls: bool = False
    system: bool = True


@dataclass(frozen=True)
class Conversation:
    """Token ids, and for each answer where it begins, where it ends, and which skill it shows."""

    ids: list[int]
    answers: list[tuple[int, int, str]]


STAGES = (
    Stage(350, LOOKING_UP, (2, 6), 4, 3e-3, system=False),
    Stage(900, BASE_SKILLS, (3, 8), 8, 2e-3, falls=True),
)


def written(turn: Turn) -> tuple[str, str]:
    """A turn as the chat template renders it: up to where the answer begins, and the answer."""
    opening = f"<|user|>{turn.question}<|assistant|>"
    if not turn.thought:
        return opening, f"{turn.answer}{END}"
    return f"{opening}<think>", f"{turn.thought}</think>{turn.answer}{END}"


def draw_conversation(
    tokenizer: PreTrainedTokenizerFast, stage: Stage, rng: random.Random, heldout: bool = False
) -> Conversation:
    """A list, and questions about it, one after the other."""
    korean = rng.random() < KOREAN_SHARE
    skills = KOREAN_SKILLS if korean and stage.skills is BASE_SKILLS else stage.skills
    readings = draw_list(rng, *stage.readings, KOREAN if korean else THINGS, heldout)
    system = f"{salad(rng)}\n\n" if stage.system and rng.random() < SYSTEM_SHARE else ""
    ids: list[int] = tokenizer(f"<|system|>{system}{readings.text}").input_ids
    names, shares = list(skills), [share for _, share in skills.values()]
    answers = []
    for name in rng.choices(names, shares, k=stage.turns):
        turn = skills[name][0](readings, rng)
        question, answer = (tokenizer(text).input_ids for text in written(turn))
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


def train_base(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rng: random.Random, progress: "tqdm[None]"
) -> None:
    """All stages, one after the other; the learning rate warms up once and falls where a stage says so."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    done = 0
    for stage in STAGES:
        for step in range(stage.steps):
            share = 0.02 + 0.98 * (1 + cos(pi * step / stage.steps)) / 2 if stage.falls else 1.0
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * share * min(1.0, (done + 1) / 40)
            batch = [draw_conversation(tokenizer, stage, rng) for _ in range(stage.batch_size)]
            loss = answer_loss(model, *collate(batch, tokenizer.pad_token_id))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += 1
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
    stage = STAGES[-1]
    for _ in range(conversations):
        drawn = draw_conversation(tokenizer, stage, rng, heldout=True)
        guesses = model(input_ids=torch.tensor([drawn.ids])).logits[0].argmax(-1).tolist()
        for start, end, name in drawn.answers:
            right[name].append(guesses[start - 1 : end - 1] == drawn.ids[start:end])
    return {
        name: {"exact_match": round(sum(found) / len(found), 4), "samples": len(found)}
        for name, found in sorted(right.items())
    }
