"""What a replica tells Serve's controller for the decision on its pool's size, as numbers by name.

Serve takes `dict[str, float]` from `record_autoscaling_stats` and nothing else.
"""

from collections.abc import Mapping

from heliostat.wire import Door, Load, StepTime
from router.scaling import Served

Stats = dict[str, float]

DOOR_FRESH_S = 10.0
"""A router that has not said for so long how many wait there is gone."""


class Doors:
    """What each router said last of those that wait for a pool."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, Door]] = {}

    def heard(self, inbox: str, door: Door, now_s: float) -> None:
        """A router's beat."""
        self._said[inbox] = now_s, door

    def all(self, now_s: float) -> Door:
        """The sum over the routers that still beat."""
        self._said = {key: said for key, said in self._said.items() if now_s - said[0] <= DOOR_FRESH_S}
        doors = [door for _, door in self._said.values()]
        return Door(
            sum(door.queued for door in doors),
            sum(door.queued_tokens for door in doors),
            sum(door.let_in for door in doors),
        )


def to_stats(load: Load, served: Served, door: Door) -> Stats:
    """All of it, flat."""
    return {
        "running": load.running,
        "waiting": load.waiting,
        "queued_prompt_tokens": load.queued_prompt_tokens,
        "kv_use": load.kv_use,
        "max_running": load.max_running,
        "context_tokens": load.context_tokens,
        "kv_tokens": load.kv_tokens,
        "prefill_tokens_per_s": load.prefill_tokens_per_s,
        "step_base_ms": load.step.base_ms,
        "step_per_request_ms": load.step.per_request_ms,
        "step_per_token_ms": load.step.per_token_ms,
        "served_requests": served.requests,
        "served_prompt_tokens": served.prompt_tokens,
        "served_computed": served.computed,
        "served_squares": served.squares,
        "door_queued": door.queued,
        "door_queued_tokens": door.queued_tokens,
        "door_let_in": door.let_in,
    }


def to_load(replica: str, stats: Mapping[str, float]) -> Load:
    """The load of `to_stats`; its sequence is lost."""
    return Load(
        replica=replica,
        running=int(stats["running"]),
        waiting=int(stats["waiting"]),
        queued_prompt_tokens=int(stats["queued_prompt_tokens"]),
        kv_use=stats["kv_use"],
        sequence=0,
        max_running=int(stats["max_running"]),
        context_tokens=int(stats["context_tokens"]),
        kv_tokens=int(stats["kv_tokens"]),
        prefill_tokens_per_s=stats["prefill_tokens_per_s"],
        step=StepTime(stats["step_base_ms"], stats["step_per_request_ms"], stats["step_per_token_ms"]),
    )


def to_served(stats: Mapping[str, float]) -> Served:
    """The counts of `to_stats`."""
    return Served(
        stats["served_requests"],
        stats["served_prompt_tokens"],
        stats["served_computed"],
        stats["served_squares"],
    )


def to_door(stats: Mapping[str, float]) -> Door:
    """The waiting of `to_stats`."""
    return Door(int(stats["door_queued"]), int(stats["door_queued_tokens"]), int(stats["door_let_in"]))
