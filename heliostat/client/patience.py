"""Timeouts of blocking reads that are asked for anew at every read.

httpx takes the time between two reads once for a whole answer. But until an answer begins, that time is what
is left of a deadline, and from then on it is another one.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, Self, cast

_OPENED = (".connect_tcp.complete", ".start_tls.complete")
"""httpcore's events that hand out a connection."""

SHORTEST_S = 0.001
"""0 would be a socket that does not block."""


class Patience(float):
    """What httpx takes for its read timeout; a patient connection asks `now`."""

    now: Callable[[], float]

    def __new__(cls, now: Callable[[], float]) -> Self:
        made = super().__new__(cls, max(now(), SHORTEST_S))
        made.now = now
        return made


class _Connection(Protocol):
    """httpcore's NetworkStream."""

    read: Callable[[int, float | None], bytes]


def make_patient(event: str, told: Mapping[str, object]) -> None:
    """For httpx's `trace`: each connection that opens asks a Patience anew, as long as it lives.

    Its reads raise TimeoutError where nothing is left, also if bytes are there: a server that dribbles must
    not hold anybody up.
    """
    if not event.endswith(_OPENED):
        return
    connection = cast(_Connection, told["return_value"])
    read = connection.read

    def patient(size: int, timeout: float | None = None) -> bytes:
        if isinstance(timeout, Patience):
            timeout = timeout.now()
            if timeout <= 0:
                raise TimeoutError
        return read(size, timeout)

    connection.read = patient
