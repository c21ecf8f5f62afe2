"""What `heliostat status` prints of a cluster."""

import io

import pytest
from rich.console import Console

from cluster.status import render_status
from heliostat.status import ClusterStatus, PoolStatus, ReplicaStatus
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
