"""A vLLM plugin (`vllm.general_plugins`, vLLM 0.32) for hosts on which several engines share the cores.

Readers of vLLM's shared-memory queues spin for a second after every message, so each engine that has
just worked keeps two processes busy. With a core per process that saves microseconds a step; with
five engines on two cores it starves the router and the HTTP proxy, and streams come in lumps of up to
a second (measured). Where `NAP` is set, a spinning reader sleeps a tenth of a millisecond between two
looks instead of yielding.

Waiting for the writer's notification from the start is no way out: notifications get lost while
messages are frequent, and a step then takes seconds (tried).
"""

import os
import time

NAP = "HELIOSTAT_NAP"
"""Set by `deployments.environment` for replicas without a GPU; vLLM loads plugins in all its processes."""

NAP_S = 1e-4


def register() -> None:
    """Called by vLLM in the replica, the engine core and the worker."""
    if os.environ.get(NAP) != "1":
        return
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.sched_yield = lambda: time.sleep(NAP_S)
