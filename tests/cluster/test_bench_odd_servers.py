"""What `heliostat bench` makes of servers that stream otherwise than Heliostat does."""

from collections.abc import Callable

import pytest
from openai_server import Exchange, Json

from cluster.answer_times import AnswerTimes
from cluster.bench_record import Asking, Record, Sender
from cluster.bench_requests import Planned
from heliostat import AsyncClient, Piece, ToolCallDelta


async def role(exchange: Exchange, finish_reason: str | None = None) -> None:
    """What many servers send first."""
    delta: Json = {"role": "assistant", "content": ""}
    await exchange.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


async def done(exchange: Exchange) -> None:
    await exchange.event("[DONE]")
    await exchange.end()


async def only_done(exchange: Exchange) -> None:
    await exchange.head()
    await done(exchange)


async def role_and_done(exchange: Exchange) -> None:
    await exchange.head()
    await role(exchange)
    await done(exchange)


@pytest.mark.parametrize("streams", [only_done, role_and_done])
async def test_a_stream_without_a_token_is_no_answer(bench, answering_server, streams: Callable) -> None:
    answering_server.streams = streams
    ended = await bench("--model", "math", "--requests", "4", "--slo-ttft-ms", "60000")
    total = ended.report["total"]
    assert (ended.status, total["ok"], total["failed"], total["good"]) == (1, 0, 4, 0)
    assert "failed: 4 NoToken: the stream ended, and no token had come" in ended.out
    assert "0.0% kept TTFT" in ended.out


async def test_an_answer_that_says_nothing_and_ends_is_one(bench, answering_server) -> None:
    async def ends(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.text("", "stop")
        await done(exchange)

    answering_server.streams = ends
    ended = await bench("--model", "math", "--requests", "4", "--slo-ttft-ms", "60000")
    assert (ended.status, ended.report["total"]["good"]) == (0, 4)


async def test_what_had_come_of_a_broken_stream_is_not_repeated(bench, answering_server) -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.text("so far " * 1000)
        exchange.drop()

    answering_server.streams = breaks
    ended = await bench("--model", "math", "--requests", "2")
    (line,) = [line for line in ended.out.splitlines() if line.startswith("failed:")]
    assert line.startswith("failed: 2 StreamBrokenError: ") and line.endswith("; 7000 characters had come")


async def test_a_stream_that_falls_silent_has_timed_out(server) -> None:
    async def falls_silent(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.text("so far")
        await exchange.client_left()

    server.then(falls_silent)
    records: list[Record] = []
    async with AsyncClient(server.url, max_retries=0, timeout_s=0.5) as client:
        await Sender(client, Asking("chat", 9), records.append).send(Planned("math", "a"))
    assert [record.failure and record.failure.kind for record in records] == ["TimedOutError"]


async def test_a_server_cannot_command_the_terminal_and_a_page_is_cut(bench, answering_server) -> None:
    answering_server.answers_with = lambda number: 500
    answering_server.says = "\x1b[2J\x9b2Jpage\n" + "x" * 1000
    ended = await bench("--model", "math", "--requests", "2")
    (line,) = [line for line in ended.out.splitlines() if line.startswith("failed:")]
    assert "[2J" in line and "page" in line and len(line) < 400
    assert "\x1b" not in ended.out + ended.err and "\x9b" not in ended.out + ended.err


async def test_an_error_before_the_run_is_tame_too(bench, answering_server) -> None:
    answering_server.says, answering_server.unknown = "\x1b[2Jno", frozenset({"model"})
    ended = await bench("--model", "math")
    assert ended.status == 1 and "[2Jno" in ended.err and "\x1b" not in ended.err


async def test_a_reasoning_model_of_openai(bench, answering_server) -> None:
    answering_server.counts, answering_server.unknown = False, frozenset({"max_tokens", "temperature"})
    ended = await bench("--model", "math", "--requests", "3", "--output-tokens", "8")
    measured = [each.body for each in answering_server.asked[-3:]]
    assert {body["max_completion_tokens"] for body in measured} == {8}
    assert all("stream_options" in body and not answering_server.unknown & body.keys() for body in measured)
    assert (ended.status, ended.report["total"]["output_tokens"]) == (0, 24)
    assert "math takes no temperature: its answers are drawn by chance" in ended.out
    assert ended.report["flags"]["temperature"] is None


async def test_further_keys_go_with_each_request(bench, answering_server) -> None:
    told = ("--model", "math", "--requests", "3", "--extra-body", '{"reasoning_effort": "low", "top_k": 5}')
    ended = await bench(*told)
    assert {(body["reasoning_effort"], body["top_k"]) for body in answering_server.bodies} == {("low", 5)}
    assert all(body["ignore_eos"] for body in answering_server.bodies)
    assert ended.report["flags"]["extra_body"] == {"reasoning_effort": "low", "top_k": 5}


@pytest.mark.parametrize(
    ("first", "counts"),
    [
        (Piece(finish_reason=""), False),  # the role, as SGLang and LocalAI send it
        (Piece(text="a"), True),
        (Piece(reasoning="hm"), True),
        (Piece(tool_calls=(ToolCallDelta(0, name="add"),)), True),
        (Piece(finish_reason="stop"), True),
    ],
)
def test_the_first_token_is_the_first_piece_that_says_something_or_the_end(
    first: Piece, counts: bool
) -> None:
    times = AnswerTimes(due_s=1.0)
    times.note(first, 2.0)
    times.note(Piece(text="b"), 3.0)
    assert times.ttft_ms == (1000 if counts else 2000)


def test_what_says_nothing_after_the_last_token_is_not_waited_for() -> None:
    times = AnswerTimes(due_s=1.0)
    for piece, now_s in ((Piece(text="a"), 2.0), (Piece(text="b"), 3.0), (Piece(finish_reason=""), 9.0)):
        times.note(piece, now_s)
    assert times.tpot_ms(tokens=2) == 1000
