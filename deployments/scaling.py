"""Pools that scale, on Serve's public seam: a policy per deployment, and all of them decide together.

`deployments.scaling_board` holds the decision, `router.scaling` makes it, docs/autoscaling.md explains it.
"""

import warnings
from dataclasses import asdict
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from deployments import scaling_board
from heliostat.spec import Spec
from heliostat.wire import Role
from router.scaling import ScaledPool
from router.scaling.pools import scaled_pools, scales

REPORT_S = 1.0
"""Between two reports of a replica to the controller."""

LOOK_BACK_S = 5.0
"""What Serve averages calls over that wait in handles; nothing else of its window is used."""

POLICY = "deployments.scaling:PoolPolicy"


class PoolPolicy:
    """Serve makes one for each pool, with the pool as JSON values, and calls it ten times a second."""

    def __init__(self, pool: dict[str, Any], max_gpus: int | None = None) -> None:
        role, leads_to = Role(pool["role"]), frozenset(pool["leads_to"])
        self._pool = ScaledPool(**{**pool, "role": role, "leads_to": leads_to})
        self._max_gpus = max_gpus

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The wanted size, and no state of Serve's keeping: Serve forgets it when a spec changes."""
        board, key = scaling_board.BOARD, self._pool.key
        if board.is_due(key, context.current_time):
            board.tell(self._pool, _told(context), self._max_gpus, context.current_time)
        wanted = board.wanted(key)
        return wanted.replicas if wanted else context.target_num_replicas, {}


def autoscaling_config(spec: Spec, role: Role, name: str) -> AutoscalingConfig | None:
    """Of one pool; None for specs in which no pool scales. Where one does, Serve asks about all of them: what
    a fixed decode pool cannot take, no prefill pool need bring."""
    if not scales(spec):
        return None
    pool = next(each for each in scaled_pools(spec) if each.key == (role, name))
    values = {**asdict(pool), "role": role.value, "leads_to": sorted(pool.leads_to)}
    with warnings.catch_warnings():
        # Serve (2.60) would have the interval in an environment variable, for all applications at once.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=pool.least,
            max_replicas=pool.most,
            metrics_interval_s=REPORT_S,
            look_back_period_s=LOOK_BACK_S,
            # The delays are the decision's own.
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            policy=AutoscalingPolicy(
                policy_function=POLICY, policy_kwargs={"pool": values, "max_gpus": spec.max_gpus}
            ),
        )


def _told(context: AutoscalingContext) -> scaling_board.Told:
    """The last value of every figure of every replica."""
    stats: dict[str, dict[str, float]] = {}
    for name, by_replica in (context.raw_metrics or {}).items():
        for replica, series in by_replica.items():
            if series:
                stats.setdefault(str(replica), {})[name] = series[-1].value
    return scaling_board.Told(
        context.target_num_replicas,
        context.current_num_replicas,
        context.total_queued_requests or 0.0,
        {replica: each for replica, each in stats.items() if "door_let_in" in each},
    )
