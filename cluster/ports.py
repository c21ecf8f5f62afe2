"""Ports that stay free until we listen on them.

The kernel gives out the ports of its ephemeral range to whoever asks for any, and Ray's own processes ask
for many while they start. So ours come from below that range, and below those of Serve's replicas (30000).
"""

import random
import socket
from collections.abc import Sequence

PORTS = range(20_000, 30_000)


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


def is_free(host: str, port: int) -> bool:
    """Whether one could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
