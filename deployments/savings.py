"""What sharing saves: replicas and GPUs that the same models would take, each on pools of its own."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heliostat.spec import Model, Spec
from heliostat.wire import PoolKey, Role


@dataclass(frozen=True, slots=True)
class Savings:
    """`dedicated` less what there is; below 0 when pools stand that no model uses."""

    replicas: int
    gpus: int


def savings(spec: Spec, models: Iterable[Model], replicas: Mapping[PoolKey, int]) -> Savings:
    """Of pools that have so many replicas now, as `heliostat plan` reckons for a spec at its sizes.

    Dedicated is every model with a prefill and a decode pool of its own, each as large as the one it uses.
    """
    users = Counter((role, model.pool(role)) for model in models for role in Role)
    pools = spec.pools()
    return Savings(
        replicas=sum((users[key] - 1) * count for key, count in replicas.items()),
        gpus=sum((users[key] - 1) * count * pools[key].gpus for key, count in replicas.items()),
    )
