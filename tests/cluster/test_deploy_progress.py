"""The wait for a deploy: a line for what is new, the root cause when it fails, and what still serves."""

import io

import pytest
from rich.console import Console

from cluster.deploy_progress import front_door, wait_until_there
from cluster.serve_api import Application, Deployment, HttpOptions, Replica, ServeDetails
from heliostat.errors import HeliostatError

POOL = "heliostat-decode-base"
CAUSE = (
    "Traceback\nheliostat.errors.EngineStartError: pool decode.base: the engine did not start: {} (log: x)\n"
)


def look(status: str, message: str = "", running: int = 1, target: int = 1) -> ServeDetails:
    deployment = Deployment(
        status="HEALTHY" if status == "RUNNING" else "UPDATING",
        message=message,
        target_num_replicas=target,
        replicas=tuple(Replica(replica_id=str(i), state="RUNNING") for i in range(running)),
    )
    application = Application(status=status, source="declarative", deployments={"decode-base": deployment})
    return ServeDetails(applications={POOL: application})


def wait(*looks: ServeDetails, names: tuple[str, ...] = (POOL,), removed: tuple[str, ...] = ()) -> str:
    """What is printed while Serve is seen in these states, one after the other."""
    text, pending = io.StringIO(), list(looks)
    console = Console(file=text, width=200, highlight=False)
    wait_until_there(lambda: pending.pop(0), names, removed, console, sleep=lambda _: None)
    assert not pending, "it looked no longer than it had to"
    return text.getvalue()


def test_a_pool_that_was_there_all_along_is_not_mentioned() -> None:
    assert wait(look("RUNNING")) == ""


def test_each_news_is_said_once() -> None:
    shown = wait(look("DEPLOYING"), look("DEPLOYING"), look("DEPLOYING", "no GPU is free"), look("RUNNING"))
    lines = [line.split(maxsplit=1) for line in shown.splitlines()]
    assert [what for _, what in lines][:2] == ["loading …", "waits: no GPU is free"]
    assert lines[-1][1].startswith("ready after")
    assert {name for name, _ in lines} == {"decode.base"}


def test_a_removed_pool_may_take_its_time() -> None:
    shown = wait(look("DELETING"), look("DELETING"), ServeDetails(), names=(), removed=(POOL,))
    assert "leaves" in shown and "gone after" in shown


def test_what_failed_is_one_line_and_the_next_says_who_serves() -> None:
    with pytest.raises(HeliostatError) as failed:
        wait(look("DEPLOY_FAILED", CAUSE.format("out of memory"), running=2))
    cause, serving = str(failed.value).splitlines()
    assert cause == "pool decode.base: the engine did not start: out of memory (log: x)"
    assert serving == "replicas that serve now: decode.base (2)"


def test_after_a_timeout_it_says_what_is_waited_for() -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(HeliostatError) as given_up:
        wait_until_there(
            lambda: look("DEPLOYING", "no GPU is free", running=0), (POOL,), (), console, timeout_s=-1
        )
    first, second = str(given_up.value).splitlines()
    assert first.endswith("it goes on: decode.base waits: no GPU is free")
    assert second == "replicas that serve now: none"


def test_weights_that_only_the_client_has_are_recognized() -> None:
    reason = "weights /home/me/w: no such directory on this host"
    with pytest.raises(HeliostatError, match="looked up on the nodes"):
        wait(look("DEPLOY_FAILED", CAUSE.format(reason), running=0))


def test_an_unhealthy_pool_fails_only_when_nobody_is_left_in_it() -> None:
    assert "ready after" in wait(look("UNHEALTHY", "one died", running=1), look("RUNNING"))
    with pytest.raises(HeliostatError, match="serve now: none"):
        wait(look("UNHEALTHY", "all died", running=0))


@pytest.mark.parametrize(
    ("dashboard", "listens", "door"),
    [
        ("http://127.0.0.1:8265", "127.0.0.1", "http://127.0.0.1:8000"),
        ("http://10.0.0.5:8265", "0.0.0.0", "http://10.0.0.5:8000"),
        ("http://10.0.0.5:8265", "127.0.0.1", None),
    ],
)
def test_the_front_door_is_where_clients_from_here_get_in(
    dashboard: str, listens: str, door: str | None
) -> None:
    assert front_door(dashboard, HttpOptions(host=listens, port=8000)) == door
