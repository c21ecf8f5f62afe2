"""What the chart's templates must know of a spec: its sections, their defaults, and what replicas do not see.

The templates leave out what has its default, as `deployments.serve_config` does, so that a value which is
written out changes nothing that runs.
"""

from types import UnionType
from typing import TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue

from heliostat.spec import Pool, PoolSpec, Replicas, Spec

Shape: TypeAlias = dict[str, JsonValue]


NOT_OF_POOLS: Shape = {"observability": {"traces": ["sample_ratio"], "logs": ["requests"]}}
"""Keys in sections beside a pool that only routers go by (`Spec.pool_spec` leaves them at their defaults)."""


def spec_shape() -> Shape:
    """Every key of a spec, and whose arguments a key is in.

    `outside`: keys of a pool that are not in its replicas' arguments; `beside`: sections that are, and
    whether they are even when all in them is default; `not_of_pools`: what of them is not; `routers`: keys
    of pools that are in the routers' arguments.
    """
    beside = {key: field for key, field in PoolSpec.model_fields.items() if key in Spec.model_fields}
    return {
        "outside": list(Pool.OUTSIDE_REPLICAS),
        "beside": {key: field.is_required() for key, field in beside.items()},
        "not_of_pools": {key: keys for key, keys in NOT_OF_POOLS.items() if key in beside},
        "routers": list(getattr(Pool, "ROUTERS", Pool.model_fields)),
        "spec": _fields(Spec),
    }


def _fields(model: type[BaseModel]) -> Shape:
    """By key: `default` where it has one, `section` or `sections` with what is below, `span` for bounds."""
    fields: Shape = {}
    for key, field in model.model_fields.items():
        entry: Shape = {}
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
            plain = isinstance(default, BaseModel)
            entry["default"] = default.model_dump(mode="json", exclude_defaults=True) if plain else default
        for kind, many in _models(field.annotation):
            entry["sections" if many else "section"] = _fields(kind)
            if kind is Replicas:
                entry["span"] = True
        fields[key] = entry
    return fields


def _models(annotation: object, many: bool = False) -> list[tuple[type[BaseModel], bool]]:
    """The model in an annotation, and whether it stands for several by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, many)]
    origin = get_origin(annotation)
    if origin is dict:
        return _models(get_args(annotation)[1], many=True)
    if origin in (Union, UnionType):
        return [found for part in get_args(annotation) for found in _models(part, many)]
    return []
