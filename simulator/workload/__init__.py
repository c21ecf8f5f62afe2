"""What arrives at a simulated cluster: drawn from a seed, or replayed from a trace."""

from simulator.workload.config import WorkloadConfig
from simulator.workload.registry import make_workload

__all__ = ["WorkloadConfig", "make_workload"]
