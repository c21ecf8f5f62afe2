"""Facts about the agents' loops, over a context whose answers are given, and about how answers are read."""

from types import ModuleType, SimpleNamespace

import pytest


class Told:
    """A context that has its answers in advance; keeps what was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    async def ask(self, model: str, question: str, *, keep: bool = False, **options: object):
        assert keep, "an agent's steps stay in its context"
        self.asked.append((model, question))
        return SimpleNamespace(text=self.answers.pop(0))


@pytest.fixture(scope="module")
def react(load_example) -> ModuleType:
    return load_example("agents/react.py")


@pytest.fixture(scope="module")
def words(load_example) -> ModuleType:
    return load_example("agents/words.py")


@pytest.fixture(scope="module")
def reflexion(load_example) -> ModuleType:
    return load_example("agents/reflexion.py")


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("Thought: the lamp is not known. Action: read lamp", ("the lamp is not known", "read", "lamp")),
        ("Thought: both are known.\nAction: add 40+93", ("both are known", "add", "40+93")),
        ("Thought: done. Action: finish 133.", ("done", "finish", "133")),
        ("Action: read lamp", None),
        ("Thought: hm. Action: dance lamp", None),
    ],
)
def test_a_step_has_a_thought_and_an_action(
    words: ModuleType, text: str, step: tuple[str, ...] | None
) -> None:
    assert words.parse_step(text) == step


@pytest.mark.parametrize(
    ("text", "yes"), [("yes", True), ("lamp: 40</think>Yes.", True), ("yes</think>no", False), ("", False)]
)
def test_a_check_is_read_after_its_thought(words: ModuleType, text: str, yes: bool) -> None:
    assert words.says_yes(text) is yes


async def test_react_acts_on_each_thought_until_it_finishes(react: ModuleType) -> None:
    ctx = Told(
        "Thought: the lamp is not known. Action: read lamp", "lamp: 40", "lamp: 40</think>yes",
        "Thought: the pump is not known. Action: read pump", "pump: 93", "yes",
        "Thought: both are known. Action: add 40+93", "133",
        "Thought: the sum is known. Action: finish 133",
    )  # fmt: skip
    outcome = await react.solve(ctx, react.Specialists(), "the lamp and the pump")
    assert outcome.answer == "133"
    assert [model for model, _ in ctx.asked] == ["plan", "read", "check"] * 2 + ["plan", "math", "plan"]
    assert ctx.asked[1] == ("read", "What is the lamp at?")
    assert ctx.asked[2] == ("check", "Is the lamp at 40?")
    assert outcome.log[0].endswith("read lamp -> lamp: 40 (checked)")


async def test_react_gives_up_on_what_is_no_step_and_on_too_many(react: ModuleType) -> None:
    lost = await react.solve(Told("I do not know"), react.Specialists(), "the lamp and the pump")
    assert (lost.answer, lost.log) == ("", ("no step: 'I do not know'",))
    again = ("Thought: no. Action: read lamp", "lamp: none") * 2
    turning = await react.solve(Told(*again), react.Specialists(), "the lamp and the pump", most_steps=2)
    assert turning.answer == ""
    assert len(turning.log) == 2


async def test_reflexion_asks_for_a_lesson_where_a_check_fails(reflexion: ModuleType) -> None:
    ctx = Told("lamp: 40", "lamp: 35</think>no", "Take the last lamp.")
    trial = await reflexion.attempt(ctx, reflexion.Specialists(), ("lamp", "pump"), [])
    assert trial == reflexion.Trial(("40",), "", "Take the last lamp.")
    assert ctx.asked[-1] == ("plan", "The lamp is not at 40. What is the lesson?")


async def test_reflexion_acts_on_its_lessons(reflexion: ModuleType) -> None:
    ctx = Told("lamp: 35", "yes", "pump: 93", "yes", "128")
    trial = await reflexion.attempt(ctx, reflexion.Specialists(), ("lamp", "pump"), ["Take the last lamp."])
    assert trial == reflexion.Trial(("35", "93"), "128", "")
    assert ctx.asked[0] == ("read", "What is the lamp at? Take the last lamp.")
    assert ctx.asked[-1] == ("math", "What is 35+93?")


def test_the_memory_keeps_the_newest_lessons_once(reflexion: ModuleType) -> None:
    assert reflexion.remembered(["a", "b"], "a") == ["b", "a"]
    assert reflexion.remembered(["a", "b", "c"], "d") == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("answers", "trial"),
    [
        (("lamp: none",), (("none",), "", "")),
        (("lamp: 40", "lamp: 35</think>no", " "), (("40",), "", "")),
    ],
)
async def test_a_trial_without_answer_and_lesson_is_no_success(
    reflexion: ModuleType, answers: tuple[str, ...], trial: tuple
) -> None:
    found = await reflexion.attempt(Told(*answers), reflexion.Specialists(), ("lamp", "pump"), [])
    assert found == reflexion.Trial(*trial)
