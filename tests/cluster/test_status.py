"""What `heliostat status` prints of a cluster."""

import asyncio
import io
import re

import pytest
from openai_server import Exchange, OpenAIServer
from rich.console import Console

from cluster.status import fetch_status, render_status
from docs.site.blocks import matches
from heliostat.errors import HeliostatError
from heliostat.status import ClusterStatus, HandoffFigures, PoolStatus, ReplicaStatus
from heliostat.wire import Role


def printed(*weights: str) -> str:
    replicas = tuple(
        ReplicaStatus(
            name=f"decode-base#{number}",
            waiting=0,
            running=0,
            queued_prompt_tokens=0,
            kv_use=0.0,
            handoffs=(),
            pid=number,
            weights=each,
        )
        for number, each in enumerate(weights)
    )
    pool = PoolStatus(role=Role.DECODE, name="base", models=(), replicas=replicas, problem=None)
    out = io.StringIO()
    render_status(ClusterStatus(version="1", ready=True, pools=(pool,)), Console(file=out, width=100))
    return out.getvalue()


@pytest.mark.parametrize("weights", [(), ("one",), ("one", "one")])
def test_a_pool_of_one_version_is_not_worth_a_word(weights: tuple[str, ...]) -> None:
    assert "replaced" not in printed(*weights)


def test_a_pool_that_rolls_says_what_its_replicas_run() -> None:
    assert "pool decode.base is being replaced: weights 01234567 on 2, abcdef on 1" in printed(
        "0123456789", "abcdef", "0123456789"
    )


def test_the_table_on_the_page(shown: str) -> None:
    """Its rows, made a status again, are printed as they stand there."""
    pools: dict[str, list[ReplicaStatus]] = {}
    for row in re.findall(r"^ (\w+\.\w+)\s+(\w+)\s+(\d+)\s+(\d+)\s+([\d.]+)%(.*)$", shown, re.MULTILINE):
        label, name, waiting, running, kv_use, copies = row
        count, failures, mib, ms = copies.split()
        copied = HandoffFigures(
            transport="shm",
            domain="d",
            open=0,
            committed=int(count),
            admitted=0,
            released=0,
            expired=0,
            copies=int(count),
            num_bytes=round(float(mib) * 2**20),
            ms=float(ms) * int(count),
            hidden_ms=0.0,
            stranded_block_s=0.0,
            failures={"expired": int(failures)},
        )
        pools.setdefault(label, []).append(
            ReplicaStatus(
                name=f"{label}#{name}",
                waiting=int(waiting),
                running=int(running),
                queued_prompt_tokens=0,
                kv_use=float(kv_use) / 100,
                handoffs=(copied,),
                pid=1,
            )
        )
    assert len(pools) == 5
    status = tuple(
        PoolStatus(
            role=Role(label.partition(".")[0]),
            name=label.partition(".")[2],
            models=(),
            replicas=tuple(each),
            problem=None,
        )
        for label, each in pools.items()
    )
    out = io.StringIO()
    render_status(ClusterStatus(version="0.1.0", ready=True, pools=status), Console(file=out, width=100))
    assert matches(shown.partition("\n")[2], out.getvalue()), out.getvalue()


@pytest.mark.parametrize("root", ["", "/v1", "/v1/"])
async def test_the_url_that_serve_prints_will_do(server: OpenAIServer, root: str) -> None:
    status = ClusterStatus(version="1", ready=True, pools=())

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(status.model_dump_json())

    server.then(answer)
    assert await asyncio.to_thread(fetch_status, server.url + root) == status
    assert server.asked[0].path == "/status"


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(HeliostatError, match="give an address like"):
        fetch_status("127.0.0.1:8000")
