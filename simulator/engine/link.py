"""The network between replicas: every replica sends one KV at a time and receives one at a time."""


class Link:
    """One replica's port. Directions do not disturb each other."""

    __slots__ = ("receives_until_s", "sends_until_s")

    def __init__(self) -> None:
        self.sends_until_s = 0.0
        self.receives_until_s = 0.0


def transfer(source: Link, target: Link, begin_s: float, seconds: float) -> float:
    """Moves a KV that takes so long alone, as soon as both ports are free. Returns when it has arrived."""
    end_s = max(begin_s, source.sends_until_s, target.receives_until_s) + seconds
    source.sends_until_s = target.receives_until_s = end_s
    return end_s
