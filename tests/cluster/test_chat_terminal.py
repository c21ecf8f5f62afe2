"""`heliostat chat` in a terminal of its own: what a person types, sees, and stops."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pty_terminal import CTRL_C, CTRL_D, TAB, UP, WITHIN_S, Terminal

KOREAN = "안녕하세요, 한글은 깨지지 않습니다"


@pytest.fixture
async def terminal(talker) -> AsyncIterator[Callable[..., Terminal]]:
    """Starts `heliostat chat` with the server that `talker` is, in a terminal."""
    opened: list[Terminal] = []

    def start(*args: str, **environment: str) -> Terminal:
        opened.append(Terminal("chat", "--url", talker.url, *args, **environment))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


async def test_a_question_an_answer_and_what_it_took(terminal, talker) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type("1 + 1\r")
    assert "math heard 1 + 1\r\n" in await chat.shows("math heard 1 + 1\r\n")
    line = await chat.shows("math> ")
    assert "3 tokens" in line and "TTFT" in line and "prompt 20, 12 cached (7 by another model)" in line
    assert "prefill-x#1 → decode-y#2" in line
    chat.type(CTRL_D)
    assert await chat.ends() == 0


async def test_another_model_goes_on_with_the_same_conversation(terminal, talker) -> None:
    chat = terminal("--model", "math", "--system", "be brief")
    await chat.shows("math> ")
    chat.type("one\r")
    await chat.shows("math> ")
    chat.type("/model code\r")
    await chat.shows("code> ")
    chat.type("two\r")
    await chat.shows("code heard two")
    await chat.shows("code> ")
    first, second = talker.chats
    assert (first["model"], second["model"]) == ("math", "code")
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert [each["role"] for each in second["messages"]] == ["system", "user", "assistant", "user"]
    assert len({asked.headers["x-heliostat-session"] for asked in talker.asked_chats}) == 1


async def test_ctrl_c_stops_the_answer_here_and_at_the_server(terminal, talker) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type("endless\r")
    await chat.shows("so far")
    chat.type(CTRL_C)
    await chat.shows("stopped")
    await asyncio.wait_for(talker.left.wait(), WITHIN_S)
    await chat.shows("math> ")
    chat.type("and now\r")
    await chat.shows("math heard and now")
    said = [(each["role"], each["content"]) for each in talker.chats[-1]["messages"]]
    assert said == [("user", "endless"), ("assistant", "so far"), ("user", "and now")]


async def test_ctrl_c_stops_an_answer_that_has_not_begun(terminal, talker) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type("silent\r")
    await asyncio.wait_for(talker.holding.wait(), WITHIN_S)
    chat.type(CTRL_C)
    await asyncio.wait_for(talker.left.wait(), WITHIN_S)
    await chat.shows("math> ")
    chat.type("and now\r")
    await chat.shows("math heard and now")
    assert [each["content"] for each in talker.chats[-1]["messages"]] == ["and now"]


async def test_ctrl_c_at_the_prompt_ends_the_chat(terminal) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type(CTRL_C)
    assert await chat.ends() == 0


async def test_korean_is_read_edited_and_shown(terminal, talker) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type(KOREAN + "각\x7f\r")  # the last one is taken back
    await chat.shows(f"math heard {KOREAN}\r\n")
    await chat.shows("math> ")
    chat.type(UP + "!\r")
    await chat.shows(f"math heard {KOREAN}!\r\n")
    assert talker.chats[-1]["messages"][-1]["content"] == KOREAN + "!"


async def test_an_error_is_shown_and_the_chat_goes_on(terminal, talker) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type("refuse\r")
    await chat.shows("heliostat: no such thing")
    await chat.shows("math> ")
    chat.type("break off\r")
    await chat.shows("4 characters had come")
    await chat.shows("math> ")
    chat.type("and now\r")
    await chat.shows("math heard and now")
    assert [each["content"] for each in talker.chats[-1]["messages"]] == ["and now"]


async def test_a_model_cannot_command_the_terminal(terminal, talker) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type("escape\r")
    shown = await chat.shows("cleared")
    assert "\x1b[2J" not in shown.split("escape", 1)[1]
    await chat.shows("math> ")
    chat.type("refuse wildly\r")
    shown = await chat.shows("cleared")
    assert "\x1b[2J" not in shown.split("refuse", 1)[1]


@pytest.mark.parametrize("command", ["/models", "/model code"])
async def test_ctrl_c_stops_a_command_that_waits_and_not_the_chat(terminal, talker, command: str) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type("one\r")
    await chat.shows("math> ")
    talker.lists_models = False
    chat.type(f"{command}\r")
    await asyncio.wait_for(talker.holding.wait(), WITHIN_S)
    chat.type(CTRL_C)
    await chat.shows("stopped")
    await chat.shows("math> ")
    chat.type("two\r")
    await chat.shows("math heard two")
    assert [each["content"] for each in talker.chats[-1]["messages"]] == ["one", "math heard one", "two"]


async def test_tab_completes_commands_and_models(terminal) -> None:
    chat = terminal("--model", "math")
    await chat.shows("math> ")
    chat.type("/model co" + TAB + "\r")
    await chat.shows("code> ")


async def test_a_terminal_without_colours_gets_none(terminal) -> None:
    chat = terminal("--model", "math", NO_COLOR="1", TERM="dumb")
    await chat.shows("math> ")
    chat.type("hello\r")
    await chat.shows("math> ")
    assert "\x1b[2m" not in chat.screen
