"""`heliostat status`: what a running cluster says about itself, asked over HTTP."""

import argparse
from collections import Counter

import httpx
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from cluster.api_key import VARIABLE, headers
from heliostat.client.settings import root_of
from heliostat.errors import HeliostatError
from heliostat.status import ClusterStatus, PoolStatus

TIMEOUT_S = 10.0


def status_command(args: argparse.Namespace) -> int:
    """`heliostat status`: exit status 0 when the cluster is ready, else 3."""
    status = fetch_status(args.url)
    if args.json:
        print(status.model_dump_json(indent=2))
    else:
        render_status(status, Console())
    return 0 if status.ready else 3


def fetch_status(url: str) -> ClusterStatus:
    """Raises HeliostatError when no Heliostat router answers there. `url` may end in the /v1 of OpenAI's
    clients, which `heliostat serve` prints."""
    try:
        response = httpx.get(f"{root_of(url)}/status", headers=headers(), timeout=TIMEOUT_S)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise HeliostatError(f"{url} wants an API key; put one of its keys in {VARIABLE}")
        response.raise_for_status()
        return ClusterStatus.model_validate_json(response.content)
    except httpx.HTTPError as error:
        raise HeliostatError(f"no answer from {url}: {error}; is `heliostat serve` running there?") from error
    except ValidationError as error:
        raise HeliostatError(f"{url} answers, but it is not a Heliostat router") from error


def render_status(status: ClusterStatus, console: Console) -> None:
    """One row per replica; below, why a pool has none, and which ones are being replaced."""
    table = Table(
        title=f"Heliostat {status.version}: {'ready' if status.ready else 'not ready'}",
        caption="copies: handoffs so far, MiB of them all, ms of one",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for heading in ("pool", "replica"):
        table.add_column(heading, no_wrap=True)
    for heading in ("queue", "run", "KV", "copies", "fail", "MiB", "ms"):
        table.add_column(heading, justify="right")
    for pool in status.pools:
        for row in _rows(pool):
            table.add_row(*row)
    console.print(table)
    for pool in status.pools:
        if pool.problem:
            console.print(f"{pool.problem}; its log is on the host of the replica (docs/cluster.md)")
        if rolling := _rolling(pool):
            console.print(rolling)


def _rolling(pool: PoolStatus) -> str:
    """Which weights a pool runs while there are several; empty otherwise."""
    weights = Counter(replica.weights[:8] for replica in pool.replicas)
    if len(weights) < 2:
        return ""
    parts = ", ".join(f"{digest} on {count}" for digest, count in weights.items())
    return f"pool {pool.role}.{pool.name} is being replaced: weights {parts}"


def _rows(pool: PoolStatus) -> list[tuple[str, ...]]:
    label = f"{pool.role}.{pool.name}"
    if not pool.replicas:
        return [(label, "none")]
    return [
        (
            label,
            replica.name.rpartition("#")[2],
            str(replica.waiting),
            str(replica.running),
            f"{replica.kv_use:.1%}",
            str(replica.copies),
            str(replica.failures),
            f"{replica.copied_bytes / 2**20:,.1f}",
            f"{replica.copy_ms / max(1, replica.copies):.2f}",
        )
        for replica in pool.replicas
    ]
