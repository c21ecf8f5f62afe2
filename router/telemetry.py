"""What one router process knows about every replica: reports as they arrive, and its own in-flight count."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from heliostat.wire import Load
from router.policy.base import Candidate

MAX_HELD = 4096
"""Prompts whose replica is remembered."""


@dataclass(slots=True)
class _View:
    load: Load | None = None
    in_flight: int = 0
    in_flight_tokens: int = 0


class TelemetryBoard:
    """Local and approximate: several routers need not agree, each corrects reports by its own count.

    Methods are short and take no lock; Serve may call them from its router's thread, and the
    interpreter lock makes each dictionary access whole.
    """

    def __init__(self) -> None:
        self._views: dict[str, _View] = {}
        self._calls: dict[str, tuple[str, int]] = {}
        self._holders: OrderedDict[str, str] = OrderedDict()
        self._legs: dict[str, tuple[str, bool]] = {}

    def observe(self, load: Load) -> None:
        """A report arrived; one that an answer carried past a newer one is dropped."""
        view = self._views.setdefault(load.replica, _View())
        if view.load is None or load.sequence >= view.load.sequence:
            view.load = load

    def chosen(self, call_id: str, leg_id: str, replica: str, num_tokens: int) -> None:
        """The call for a request's leg, with that many prompt tokens, is on its way to a replica."""
        self.ended(call_id)  # an earlier choice did not take it
        view = self._views.setdefault(replica, _View())
        view.in_flight += 1
        view.in_flight_tokens += num_tokens
        self._calls[call_id] = (replica, num_tokens)
        self._legs.setdefault(leg_id, (call_id, False))

    def sent(self, call_id: str, leg_id: str, replica: str, num_tokens: int) -> None:
        """The replica has taken the call."""
        self.chosen(call_id, leg_id, replica, num_tokens)
        self._legs[leg_id] = (call_id, True)

    def was_sent(self, leg_id: str) -> bool:
        """Whether some replica has taken the leg; false again once `left` was called."""
        return self._legs.get(leg_id, ("", False))[1]

    def left(self, leg_id: str) -> None:
        """Nobody will ask for this leg any more; one that no replica has taken is over with that."""
        call_id, taken = self._legs.pop(leg_id, ("", True))
        if not taken:
            self.ended(call_id)

    def ended(self, call_id: str) -> None:
        """The call is over, however it went; unknown calls are ignored, so twice is once."""
        replica, num_tokens = self._calls.pop(call_id, ("", 0))
        if view := self._views.get(replica):
            view.in_flight -= 1
            view.in_flight_tokens -= num_tokens

    def keep(self, replicas: Iterable[str]) -> None:
        """Forget every replica but these, once the calls that were sent there have ended."""
        alive = set(replicas)
        for replica, view in list(self._views.items()):
            if replica not in alive and not view.in_flight:
                del self._views[replica]

    def holds(self, prefix_digest: str, replica: str) -> None:
        """The prompt with that digest is computed there, or just being computed."""
        self._holders.pop(prefix_digest, None)
        self._holders[prefix_digest] = replica
        while len(self._holders) > MAX_HELD:
            self._holders.popitem(last=False)

    def candidates(
        self, replicas: Iterable[str], prefix_digest: str = "", num_tokens: int = 0
    ) -> list[Candidate]:
        """What a policy needs for a prompt, in the order of `replicas`."""
        holder = self._holders.get(prefix_digest)
        found = ((replica, self._views.get(replica, _View())) for replica in replicas)
        return [
            Candidate(
                name, view.load, view.in_flight, view.in_flight_tokens, num_tokens if name == holder else 0
            )
            for name, view in found
        ]
