"""`heliostat chat` and `heliostat bench`, over engines that compute nothing."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from secrets import token_hex

import pytest
from pty_terminal import CTRL_C, CTRL_D, Terminal

from heliostat.wire import Role

pytestmark = pytest.mark.sim

SYSTEM = "you are asked by somebody in a hurry who wants to hear no more than a word or two"


@pytest.fixture
async def chat(sim_cluster) -> AsyncIterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*args: str) -> Terminal:
        opened.append(Terminal("chat", "--url", sim_cluster.url, *args))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def bench(sim_cluster, tmp_path: Path):
    """The exit status and the report."""

    async def run(*args: str):
        file = tmp_path / "report.json"
        command = ("-m", "cluster.cli", "bench", "--url", sim_cluster.url, "--json", str(file), *args)
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert file.exists(), out.decode()
        return process.returncode, json.loads(file.read_text())

    return run


async def test_another_model_goes_on_with_a_chat_and_finds_it_in_the_cache(chat) -> None:
    # Nobody has asked with it before, also where the cluster has been up for long.
    system = f"{token_hex(8)}: {SYSTEM}"
    terminal = chat("--model", "narrow", "--system", system, "--max-tokens", "2")
    await terminal.shows("narrow> ")
    terminal.type("a word\r")
    first = await terminal.shows("narrow> ")
    assert "2 tokens" in first and "prefill-home#" in first and "decode-narrow#" in first
    terminal.type("/model home\r")
    await terminal.shows("home> ")
    terminal.type("another\r")
    second = await terminal.shows("home> ")
    assert "2 tokens" in second and "prefill-home#" in second and "decode-base#" in second
    assert "96 cached (96 by another model)" in second, "whole blocks of 32"
    terminal.type(CTRL_D)
    assert await terminal.ends() == 0


async def test_ctrl_c_stops_the_engines_too(chat, sim) -> None:
    async def runs() -> bool:
        return any(replica.running for replica in await sim.replicas(Role.DECODE, "slow"))

    async def nothing_runs() -> bool:
        return not await runs()

    terminal = chat("--model", "slow", "--max-tokens", "1500")
    await terminal.shows("slow> ")
    terminal.type("a long story\r")
    await sim.until(runs)
    terminal.type(CTRL_C)
    await sim.until(nothing_runs)
    await terminal.shows("slow> ")


async def test_bench_closed_loop_over_two_models(bench) -> None:
    status, report = await bench(
        *("--model", "mirror", "--model", "twin", "--requests", "24", "--concurrency", "4", "--warmup", "4"),
        *("--prompt-tokens", "120", "--shared-prefix-tokens", "96", "--output-tokens", "20"),
    )
    total = report["total"]
    assert (status, total["ok"], report["warmup_ok"]) == (0, 24, 4)
    assert (total["prompt_tokens_least"], total["prompt_tokens_most"]) == (120, 120)
    assert total["output_tokens"] == 24 * 20
    assert {model: each["ok"] for model, each in report["by_model"].items()} == {"mirror": 12, "twin": 12}
    assert total["cached_tokens"] >= total["cross_model_tokens"] >= 10 * 64, "of 12 sessions' second requests"
    assert total["tpot_ms"]["p50"] >= 4.5, "an engine's step takes 5 ms"
    assert total["ttft_ms"]["p50"] < total["e2e_ms"]["p50"]


async def test_bench_open_loop_counts_what_is_refused(bench) -> None:
    status, report = await bench(
        *("--model", "limited", "--requests", "40", "--rate", "40", "--output-tokens", "100"),
        *("--slo-ttft-ms", "10000"),
    )
    total = report["total"]
    assert status == 1 and total["ok"] > 0 and total["ok"] + total["failed"] == 40
    assert [(each["kind"], each["status"]) for each in total["errors"]] == [("OverloadedError", 429)]
    assert total["good"] == total["ok"]
