"""`heliostat chat` over a pipe, and the parts of it that are plain."""

import asyncio
import io
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from cluster.answer_times import AnswerTimes
from cluster.chat_commands import Ask, Do, read
from cluster.chat_screen import Screen, figures
from heliostat import Answer, Choice, HeliostatError, Piece, ServedBy, Usage

KOREAN = "안녕하세요, 한글은 깨지지 않습니다"


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def piped(talker) -> Callable[..., Awaitable[Ended]]:
    """`heliostat chat` with the server that `talker` is, with these lines as its input."""

    async def run(lines: bytes | str, *args: str, **environment: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cluster.cli", "chat", "--url", talker.url, *args),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        out, err = await process.communicate(lines.encode() if isinstance(lines, str) else lines)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    return run


async def test_one_line_is_one_answer(piped, talker) -> None:
    ended = await piped(f"one\n\n{KOREAN}\n", "--model", "math", "--temperature", "0", "--max-tokens", "9")
    assert (ended.status, ended.out) == (0, f"math heard one\nmath heard {KOREAN}\n")
    assert ended.err.count("prefill-x#1 → decode-y#2") == 2
    assert "\x1b" not in ended.out + ended.err
    assert [len(chat["messages"]) for chat in talker.chats] == [1, 3]
    assert {(chat["temperature"], chat["max_tokens"]) for chat in talker.chats} == {(0, 9)}


async def test_a_question_without_an_answer_is_an_empty_line_and_an_exit_status(piped) -> None:
    ended = await piped("refuse\none\n", "--model", "math")
    assert (ended.status, ended.out) == (1, "\nmath heard one\n")
    assert "heliostat: no such thing" in ended.err


async def test_a_server_that_takes_less_is_asked_for_less(piped, talker) -> None:
    """As `heliostat bench` does; what it takes is found once."""
    talker.unknown = frozenset({"stream_options", "max_tokens"})
    ended = await piped("one\ntwo\n", "--model", "math", "--max-tokens", "9")
    assert (ended.status, ended.out) == (0, "math heard one\nmath heard two\n")
    first, *_, last = talker.chats
    assert first["max_tokens"] == last["max_completion_tokens"] == 9
    assert len(talker.chats) == 5, "four for the first question"


async def test_a_temperature_that_was_asked_for_is_not_dropped(piped, talker) -> None:
    talker.unknown = frozenset({"temperature"})
    ended = await piped("one\n", "--model", "math", "--temperature", "0")
    assert (ended.status, ended.out) == (1, "\n")
    assert "heliostat: unknown temperature" in ended.err


async def test_further_keys_go_with_each_question(piped, talker) -> None:
    await piped("one\n", "--model", "math", "--extra-body", '{"reasoning_effort": "low"}')
    assert talker.chats[0]["reasoning_effort"] == "low"


async def test_commands_work_over_a_pipe(piped, talker) -> None:
    ended = await piped("one\n/model code\n//two\n/reset\nthree\n/quit\nfour\n", "--model", "math")
    assert ended.out == "math heard one\ncode heard /two\ncode heard three\n"
    assert ended.status == 0
    assert [len(chat["messages"]) for chat in talker.chats] == [1, 3, 1]


async def test_bytes_that_are_no_text_do_not_end_it(piped) -> None:
    ended = await piped(b"caf\xe9\n", "--model", "math", LC_ALL="C.UTF-8")
    assert (ended.status, ended.out) == (0, "math heard caf\N{REPLACEMENT CHARACTER}\n")


async def test_whoever_stops_reading_ends_it_without_a_trace(talker) -> None:
    command = f"{sys.executable} -m cluster.cli chat --url {talker.url} --model math | head -n 1"
    process = await asyncio.create_subprocess_shell(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate(b"one\n" * 20)
    assert out == b"math heard one\n"
    assert b"Traceback" not in err and b"BrokenPipe" not in err


async def test_the_key_and_the_session_are_sent(piped, talker) -> None:
    await piped("one\n", "--model", "math", "--session", "s7", HELIOSTAT_API_KEY="secret")
    (asked,) = talker.asked_chats
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["x-heliostat-session"] == "s7"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "say which model with --model; http://.* serves math, code"),
        (("--model", "maht"), "does not serve `maht`; did you mean `math`"),
    ],
)
async def test_a_model_that_is_not_there_is_said_before_anything_is_asked(
    piped, talker, args: tuple[str, ...], message: str
) -> None:
    ended = await piped("one\n", *args)
    assert ended.status == 1 and talker.chats == []
    assert re.search(message, ended.err)


async def test_a_server_that_lists_no_models_is_believed(piped, server, talker) -> None:
    always = server.always

    async def without_a_list(exchange) -> None:
        if exchange.asked.path == "/v1/models":
            await exchange.answer({"detail": "Not Found"}, 404)
        else:
            await always(exchange)

    server.always = without_a_list
    assert (await piped("one\n", "--model", "any")).out == "any heard one\n"


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("  hello \n", Ask("hello")),
        ("//usr/bin?", Ask("/usr/bin?")),
        ("/model  math", Do("model", "math")),
        ("/quit", Do("quit")),
        (" \n", None),
    ],
)
def test_what_a_line_means(line: str, meaning: Ask | Do | None) -> None:
    assert read(line) == meaning


@pytest.mark.parametrize(
    ("line", "message"), [("/rset", "did you mean `/reset`"), ("/model", "wants a name")]
)
def test_a_command_that_is_none_is_said(line: str, message: str) -> None:
    with pytest.raises(HeliostatError, match=message):
        read(line)


def answer(usage: Usage | None = None, finish_reason: str = "stop") -> Answer:
    choice = Choice(text="x", finish_reason=finish_reason)
    served_by = ServedBy(prefill="p#1", decode="d#2") if usage else ServedBy()
    return Answer(choices=(choice,), usage=usage or Usage(), served_by=served_by)


def test_the_figures_of_an_answer_that_a_cluster_made() -> None:
    times = AnswerTimes(due_s=1.0, first_s=1.25, last_s=2.25, pieces=3)
    usage = Usage(prompt_tokens=80, output_tokens=5, cached_tokens=64, cross_model_tokens=32)
    assert figures(answer(usage), times) == (
        "5 tokens, 4/s · TTFT 250 ms · prompt 80, 64 cached (32 by another model) · p#1 → d#2"
    )


def test_a_server_that_does_not_count_tokens_is_not_believed_to_have() -> None:
    times = AnswerTimes(due_s=1.0, first_s=1.25, last_s=2.25, pieces=3)
    assert figures(answer(), times) == "3 pieces (no token count came), 2/s · TTFT 250 ms"


def test_an_answer_that_was_cut_off_says_so() -> None:
    assert "cut off" in figures(answer(Usage(output_tokens=1), "length"), AnswerTimes(0.0, 1.0, 1.0, 1))


def test_a_person_sees_a_model_think_and_a_pipe_does_not() -> None:
    shown = {}
    for interactive in (True, False):
        out = io.StringIO()
        screen = Screen(interactive, out, io.StringIO())
        for piece in (Piece(reasoning="hm"), Piece("so")):
            screen.show(piece)
        screen.end()
        shown[interactive] = out.getvalue()
    assert shown == {True: "hm\nso\n", False: "so\n"}
