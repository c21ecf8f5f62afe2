"""`heliostat bench` against a server that counts, refuses and forgets as it is told."""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from openai_server import Asked
from pty_terminal import WITHIN_S, Terminal

from cluster.bars import progress_bars
from cluster.bench import carry_out
from cluster.bench_record import Record
from cluster.bench_run import Run
from cluster.bench_transport import ManyConnections, transport_for
from cluster.cli import parser
from heliostat import AsyncClient, UnreachableError

BOTH = ("--model", "math", "--model", "code")


async def test_a_closed_loop_over_two_models(bench, answering_server) -> None:
    ended = await bench(*BOTH, "--requests", "20", "--prompt-tokens", "50", "--output-tokens", "9")
    total = ended.report["total"]
    assert ended.status == 0
    assert [warning for warning in ended.report["warnings"] if "this program" not in warning] == []
    assert (total["ok"], total["failed"], total["output_tokens"]) == (20, 0, 180)
    assert (total["prompt_tokens_least"], total["prompt_tokens_most"]) == (50, 50)
    assert (total["cached_tokens"], total["cross_model_tokens"]) == (200, 0)
    assert {model: each["ok"] for model, each in ended.report["by_model"].items()} == {"math": 10, "code": 10}
    assert 0 < total["ttft_ms"]["p50"] <= total["ttft_ms"]["p99"] <= total["e2e_ms"]["p99"]
    assert total["tpot_ms"]["p50"] > 0 and total["itl_ms"]["max"] > 0
    assert len({body["messages"][0]["content"] for body in answering_server.bodies}) == 20
    assert {(body["ignore_eos"], body["temperature"]) for body in answering_server.bodies} == {(True, 0)}
    assert "20 answered, 0 failed" in ended.out and "prompts" not in ended.err


async def test_a_seed_repeats_what_was_asked(bench, answering_server) -> None:
    first = await bench("--model", "math", "--requests", "6")
    said = Counter(body["messages"][0]["content"] for body in answering_server.bodies)
    await bench("--model", "math", "--requests", "6", "--seed", str(first.report["seed"]))
    assert Counter(body["messages"][0]["content"] for body in answering_server.bodies) == said + said


async def test_an_open_loop_with_a_warm_up_that_does_not_count(bench, answering_server) -> None:
    ended = await bench("--model", "math", "--requests", "10", "--rate", "100", "--warmup", "5")
    assert (ended.report["total"]["ok"], ended.report["warmup_ok"]) == (10, 5)
    assert ended.report["lag"]["late_ms"]["p50"] >= 0
    assert len({body["messages"][0]["content"] for body in answering_server.bodies}) == 15
    assert "100 requests/s (Poisson)" in ended.out


async def test_requests_of_a_session_share_a_prefix_and_a_name(bench, answering_server) -> None:
    await bench(*BOTH, "--requests", "8", "--prompt-tokens", "60", "--shared-prefix-tokens", "40")
    sessions: dict[str, list[Asked]] = {}
    for each in answering_server.asked[1:]:
        assert each.headers["x-heliostat-reuse"] == "soon"
        sessions.setdefault(each.headers["x-heliostat-session"], []).append(each)
    assert [len(found) for found in sessions.values()] == [2, 2, 2, 2], "whole ones, whatever the concurrency"
    for found in sessions.values():
        assert len({each.body["messages"][0]["content"][:40] for each in found}) == 1
        assert {each.body["model"] for each in found} == {"math", "code"}


async def test_failures_are_counted_and_not_asked_again(bench, answering_server) -> None:
    answering_server.answers_with = lambda number: {0: 429, 1: 500, 2: 503}.get(number % 5, 200)
    ended = await bench("--model", "math", "--requests", "20", "--slo-ttft-ms", "60000")
    total = ended.report["total"]
    assert (ended.status, total["ok"], total["failed"], total["good"]) == (1, 8, 12, 8)
    assert {(each["kind"], each["status"]): each["count"] for each in total["errors"]} == {
        ("OverloadedError", 429): 4,
        ("RequestError", 500): 4,
        ("PoolUnavailableError", 503): 4,
    }
    assert len(answering_server.bodies) == 20
    assert "failed: 4 OverloadedError (429): no, " in ended.out
    assert "40.0% kept TTFT 60000 ms" in ended.out


async def test_a_server_that_does_not_count_tokens(bench, answering_server) -> None:
    answering_server.counts, answering_server.unknown = False, frozenset({"stream_options"})
    ended = await bench("--model", "math", "--requests", "5", "--output-tokens", "10")
    assert "prompts have about 256 tokens, one a word" in ended.err
    assert ended.report["total"]["output_tokens"] == 25, "pieces"
    assert "5 of 5 answers came without a token count" in ended.out
    assert all("ignore_eos" not in body for body in answering_server.bodies)


async def test_a_connection_serves_one_request_after_the_other(bench, answering_server) -> None:
    await bench("--model", "math", "--requests", "40", "--concurrency", "2")
    assert answering_server.server.connections <= 8 + 2, "eight of the set-up's questions, and two streams"


async def test_each_request_is_a_line_of_a_file(bench, answering_server, tmp_path: Path) -> None:
    answering_server.answers_with = lambda number: 429 if number == 3 else 200
    file = tmp_path / "requests.jsonl"
    told = ("--requests", "5", "--concurrency", "1", "--output-tokens", "6", "--save-requests", str(file))
    await bench(*BOTH, *told)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["model"], line["error"], line["status"]) for line in lines] == [
        ("math", "", 0),
        ("code", "", 0),
        ("math", "OverloadedError", 429),
        ("code", "", 0),
        ("math", "", 0),
    ]
    first, failed = lines[0], lines[2]
    assert 0 <= first["due_s"] <= first["sent_s"] < first["ended_s"]
    assert 0 < first["ttft_ms"] <= first["e2e_ms"] and first["tpot_ms"] > 0 and len(first["itl_ms"]) == 2
    assert (first["prompt_tokens"], first["output_tokens"], first["counted"]) == (256, 6, True)
    assert (failed["ttft_ms"], failed["output_tokens"], failed["message"]) == (None, 0, "no, 3")


async def test_what_a_run_was_told_is_in_numbers(bench, tmp_path: Path) -> None:
    told = ("--requests", "6", "--concurrency", "8", "--shared-prefix-tokens", "20", "--warmup", "2")
    flags = (await bench("--model", "math", *told, "--timeout", "30")).report["flags"]
    assert (flags["requests"], flags["concurrency"], flags["streams"], flags["warmup"]) == (6, 8, 2, 2)
    assert (flags["prompt_tokens"], flags["shared_prefix_tokens"], flags["requests_per_session"]) == (
        256,
        20,
        4,
    )
    assert (flags["rate_per_s"], flags["timeout_s"], flags["api"]) == (None, 30.0, "chat")
    opened = (await bench("--model", "math", "--requests", "2", "--rate", "50")).report["flags"]
    assert (opened["rate_per_s"], opened["streams"], opened["exact_length"]) == (50.0, None, True)


async def test_connections_are_given_back_whatever_becomes_of_a_request(server, answering) -> None:
    async def dropped(exchange) -> None:
        exchange.drop()

    server.then(answering("one"), dropped, answering("two"), answering("three"))
    async with AsyncClient(server.url, max_retries=0, transport=ManyConnections()) as client:
        assert (await client.chat("m", "q")).text == "one"
        with pytest.raises(UnreachableError):
            await client.chat("m", "q")
        assert [(await client.chat("m", "q")).text for _ in range(2)] == ["two", "three"]
    assert server.connections == 2


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "here")
    assert transport_for("http://there:8000/v1") is None
    assert isinstance(transport_for("http://here:8000"), ManyConnections)


async def test_a_file_of_prompts(bench, answering_server, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"prompt": "하나"}\n{"prompt": "둘"}\n')
    ended = await bench("--model", "math", "--requests", "4", "--dataset", str(file))
    said = Counter(body["messages"][0]["content"] for body in answering_server.bodies)
    assert said == {"하나": 2, "둘": 2}
    assert "4 prompts were asked of the file's 2" in ended.out
    assert all("ignore_eos" not in body for body in answering_server.bodies)


@pytest.mark.parametrize(("rows", "again"), [(6, False), (5, True)])
async def test_a_warm_up_asks_rows_of_its_own(
    bench, answering_server, tmp_path: Path, rows: int, again: bool
) -> None:
    """Else all that is measured would come from the caches that the warm-up has filled."""
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(f'{{"prompt": "{number}"}}\n' for number in range(rows)))
    told = ("--warmup", "2", "--requests", "4", "--concurrency", "1", "--dataset", str(file))
    ended = await bench("--model", "math", *told)
    said = [body["messages"][0]["content"] for body in answering_server.bodies]
    assert said == [str(number % rows) for number in range(6)]
    assert ("6 prompts were asked of the file's 5, warm-up and all" in ended.out) is again


async def test_sessions_that_are_fewer_than_the_streams_are_said(bench, answering_server) -> None:
    told = ("--requests", "16", "--concurrency", "8", "--shared-prefix-tokens", "20")
    ended = await bench("--model", "math", *told)
    assert ended.out.splitlines()[1].startswith("4 at a time;")
    assert "4 requests at a time, not 8: 16 are 4 sessions of 4" in ended.out
    assert "--requests 32 would do" in ended.out
    enough = await bench("--model", "math", "--shared-prefix-tokens", "20", "--requests", "32")
    assert "8 at a time;" in enough.out and "not 8" not in enough.out


class Stumbling(Run):
    """Meets what nobody has foreseen, after three requests."""

    noted = 0

    def note(self, record: Record) -> None:
        super().note(record)
        self.noted += 1
        if self.noted == 3:
            raise ZeroDivisionError


async def test_what_was_measured_is_told_also_when_something_unforeseen_ends_it(
    answering_server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    told = ["bench", "--url", answering_server.url, "--model", "math", "--concurrency", "1"]
    args = parser().parse_args(told)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.to_thread(carry_out, Stumbling(args, progress_bars()), file)
    assert raised.group_contains(ZeroDivisionError)
    assert json.loads(file.read_text())["total"]["ok"] == 3
    assert "3 answered, 0 failed" in capsys.readouterr().out


async def test_a_request_that_cannot_be_sent_is_a_failed_one(bench, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": NaN}]}\n')
    ended = await bench("--model", "math", "--requests", "2", "--dataset", str(file))
    assert (ended.status, ended.report["total"]["failed"]) == (1, 2)
    assert "failed: 2 InvalidRequestError (400): the request cannot be written as JSON" in ended.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model", "mth"), "does not serve `mth`; did you mean `math`"),
        ((), "say which model with --model"),
        (("--model", "math", "--prompt-tokens", "3"), "have no room for a word: 3 are the template's"),
        (("--model", "math", "--dataset", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("--model", "math", "--json", "nowhere/report.json"), "nowhere/report.json cannot be written"),
        (("--model", "math", "--save-requests", "nowhere/a.jsonl"), "nowhere/a.jsonl cannot be written"),
    ],
)
async def test_what_cannot_be_measured_is_said_before_it_begins(
    bench, answering_server, args: tuple[str, ...], message: str
) -> None:
    ended = await bench(*args)
    assert ended.status == 1 and message in ended.err
    assert answering_server.bodies == []


async def test_nobody_there_is_said(bench, answering_server, unused_tcp_port) -> None:
    ended = await bench("--url", f"http://127.0.0.1:{unused_tcp_port}", "--model", "math")
    assert ended.status == 1 and "is `heliostat serve` running there?" in ended.err


async def test_ctrl_c_prints_what_was_measured(answering_server) -> None:
    answering_server.holds_after = 5
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster.cli", "bench", "--url", answering_server.url, "--model", "math"),
        *("--concurrency", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    await asyncio.wait_for(answering_server.holding.wait(), WITHIN_S)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    assert "5 answered, 0 failed" in out.decode()
    assert "interrupted, 2 had begun and are not counted" in out.decode()


async def test_a_terminal_has_a_progress_bar(answering_server) -> None:
    answering_server.holds_after = 30
    terminal = Terminal("bench", "--url", answering_server.url, "--model", "math", "--requests", "60")
    try:
        assert "━" in await terminal.shows("30 answered, 0 failed")
        terminal.type("\x03")
        await terminal.shows("interrupted, 8 had begun")
        assert await terminal.ends() == 130
    finally:
        terminal.close()
