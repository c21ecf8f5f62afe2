"""A vLLM plugin (`vllm.general_plugins`, vLLM 0.32), loaded in each of an engine's processes.

No process outlives its parent: when a replica is killed, its engine core and worker end with it. vLLM's
own notice of a lost parent is a matter of the next message; until then an orphan holds its memory, its
cores, and the KV that it kept for others.

And it makes room on hosts on which several engines share the cores. Readers of vLLM's shared-memory
queues spin for a second after every message, so each engine that has just worked keeps two processes
busy. With a core per process that saves microseconds a step; with five engines on two cores it starves
the router and the HTTP proxy, and streams come in lumps of up to a second (measured). Where `NAP` is
set, a spinning reader sleeps a tenth of a millisecond between two looks instead of yielding.

Waiting for the writer's notification from the start is no way out: notifications get lost while
messages are frequent, and a step then takes seconds (tried).
"""

import multiprocessing
import os
import time

from deployments.icarus.registration import register_icarus
from deployments.parent_death import end_with_parent

NAP = "HELIOSTAT_NAP"
"""Set by `deployments.environment` for replicas without a GPU; vLLM loads plugins in all its processes."""

NAP_S = 1e-4

CPU_LORA = "HELIOSTAT_CPU_LORA"
"""Set for replicas without a GPU whose pool takes adapters (`deployments.vllm_lora_cpu`)."""


def register() -> None:
    """Called by vLLM in the replica, the engine core and the worker."""
    _end_with_parent()
    register_icarus()
    if os.environ.get(CPU_LORA) == "1":
        from deployments import vllm_lora_cpu

        vllm_lora_cpu.install()
    if os.environ.get(NAP) != "1":
        return
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.sched_yield = lambda: time.sleep(NAP_S)


def _end_with_parent() -> None:
    """Have the kernel end this process, one of an engine's children, when its parent dies."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return  # the replica itself, which is Ray's to end
    end_with_parent(parent.pid or 0)
