"""Ports that stay free until we listen on them.

The kernel gives out the ports of its ephemeral range to whoever asks for any, and Ray's own processes ask
for many while they start. So ours come from below that range, and below those of Serve's replicas (30000).
"""

import random
import socket
from collections.abc import Sequence

PORTS = range(20_000, 30_000)

BLOCKS = [range(first, first + 50) for first in range(30_000, 32_700, 50)]
"""What Serve may give its replicas, up to the ephemeral range."""


def free_ports(count: int, host: str = "0.0.0.0", among: Sequence[int] = PORTS) -> list[int]:
    """Ports of `host` on which nobody listens now. Raises OSError when there are not so many."""
    found: list[int] = []
    for port in random.sample(among, len(among)):
        if len(found) == count:
            break
        if is_free(host, port):
            found.append(port)
    if len(found) < count:
        raise OSError(f"no {count} free ports from {among[0]} to {among[-1]}")
    return found


def claim_block() -> tuple[range, socket.socket]:
    """One of `BLOCKS` for this run alone, and the claim, which holds until that socket is closed.

    Serve's replicas share their ports with whoever listens there too (SO_REUSEPORT): of two clusters on one
    host, both with a router at Serve's first port, each would get some of the other's requests.
    Raises OSError when all are claimed.
    """
    for block in random.sample(BLOCKS, len(BLOCKS)):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", block[-1]))
        except OSError:
            claim.close()
            continue
        if all(is_free("0.0.0.0", port) for port in block[:-1]):
            return block[:-1], claim
        claim.close()
    raise OSError(
        f"no ports from {BLOCKS[0][0]} to {BLOCKS[-1][-1]} are left; {len(BLOCKS)} clusters run here"
    )


def is_free(host: str, port: int) -> bool:
    """Whether one could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
