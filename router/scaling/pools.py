"""From a spec to what is decided about."""

from heliostat.spec import Spec
from heliostat.wire import Role
from router.scaling.base import ScaledPool


def scaled_pools(spec: Spec) -> tuple[ScaledPool, ...]:
    """All pools of a spec, those that do not scale among them."""
    return tuple(
        ScaledPool(
            role=role,
            name=name,
            least=pool.replicas.min,
            most=pool.replicas.max,
            gpus=pool.gpus,
            target_ms=pool.ttft_ms if role is Role.PREFILL else pool.tpot_ms,
            up_delay_s=pool.autoscale.up_delay_s,
            down_delay_s=pool.autoscale.down_delay_s,
            idle_s=pool.autoscale.idle_s,
            start_s=pool.autoscale.start_s,
            leads_to=frozenset(
                model.decode
                for model in spec.models.values()
                if role is Role.PREFILL and model.prefill == name
            ),
        )
        for (role, name), pool in spec.pools().items()
    )


def scales(spec: Spec) -> bool:
    """Whether any pool does."""
    return any(pool.scales for pool in spec.pools().values())
