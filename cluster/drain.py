"""`heliostat-drain`: what a pod does before it ends (preStop in the Helm chart).

It tells Ray that its node leaves. Serve then starts the node's replicas elsewhere, sends them nothing new,
and lets each finish what it has. This waits until the last one is gone, or until the time is over.

`ray drain-node` is a command that Ray does not list and may change (2.60). Without it, or without a head that
answers, the pod ends at once and its requests are retried elsewhere (docs/router.md, Failures).
"""

import argparse
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

REPLICA = "ray::ServeReplica:"
"""How Serve names the process of a replica."""

LOOK_S = 1.0
ASK_S = 30.0
"""How long Ray's head may take to answer."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when no replica is left here, 1 when some still run or Ray did not listen."""
    parser = argparse.ArgumentParser(
        prog="heliostat-drain", description="Let this Ray node's replicas leave."
    )
    parser.add_argument("--within", type=int, required=True, metavar="SECONDS", help="how long they may take")
    parser.add_argument("--node-id", help="another node than this one")
    args = parser.parse_args(argv)
    end_s = time.monotonic() + args.within
    if problem := announce(args.within, args.node_id):
        print(f"heliostat-drain: Ray was not told: {problem}", file=sys.stderr)
        return 1
    left = wait_until_gone(end_s, replicas_here, time.monotonic, time.sleep)
    if left:
        print(f"heliostat-drain: still running after {args.within} s: {', '.join(left)}", file=sys.stderr)
    return 1 if left else 0


def announce(within_s: int, node_id: str | None = None) -> str | None:
    """Tell Ray that this node leaves; why it did not work, or None."""
    command = [
        str(Path(sysconfig.get_path("scripts")) / "ray"),
        "drain-node",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=the pod ends",
        f"--deadline-remaining-seconds={within_s}",
        *([f"--node-id={node_id}"] if node_id else []),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def replicas_here() -> list[str]:
    """The replicas whose processes this pod has."""
    titles = []
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        if title.startswith(REPLICA):
            titles.append(title.removeprefix(REPLICA).split(".")[0])
    return titles


def wait_until_gone(
    end_s: float,
    replicas: Callable[[], list[str]],
    now_s: Callable[[], float],
    sleep: Callable[[float], None],
) -> list[str]:
    """The replicas that are left when none is, or when it is `end_s`."""
    while (left := replicas()) and now_s() < end_s:
        sleep(LOOK_S)
    return left


if __name__ == "__main__":
    sys.exit(main())
