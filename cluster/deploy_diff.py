"""What a changed spec does to a cluster that runs: which pools stay as they are, and which are made anew.

Serve makes an application's replicas anew when its `args` change, and changes what stands under its
`deployments` in the replicas that run. So the two configs, side by side, say what will happen.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from pydantic import JsonValue

from deployments.names import APP_NAME, application_label

Config = Mapping[str, JsonValue]
"""One application as Serve's REST API takes it."""


class Effect(StrEnum):
    """What happens to a pool, to the routers or to a model."""

    UNCHANGED = "unchanged"
    IN_PLACE = "in place"
    ANEW = "made anew"
    ADDED = "added"
    REMOVED = "removed"
    RETRIED = "tried again"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key of the spec; None stands for its default, or for nothing."""

    key: str
    before: JsonValue
    after: JsonValue

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class Change:
    """One pool, the routers, or one model. `note` is what an operator should know of it."""

    name: str
    effect: Effect
    keys: tuple[KeyChange, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Diff:
    """A whole spec against what runs."""

    pools: tuple[Change, ...]
    routers: Change
    models: tuple[Change, ...]

    @property
    def changes(self) -> bool:
        """Whether anything will happen."""
        return any(change.effect is not Effect.UNCHANGED for change in (*self.pools, self.routers))

    def to_json(self) -> str:
        """The fields above by their names, for scripts."""
        return json.dumps(asdict(self), indent=2)


def make_diff(before: Mapping[str, Config], after: Mapping[str, Config], failed: frozenset[str]) -> Diff:
    """Ours among the applications that run, and as they shall be; both by name.

    `failed` are those of before that did not start, which Serve would not try again by itself.
    """
    pools = tuple(
        _application(name, before.get(name), after.get(name), failed)
        for name in [*after, *(name for name in before if name not in after)]
        if name != APP_NAME
    )
    return Diff(
        pools,
        _application(APP_NAME, before.get(APP_NAME), after.get(APP_NAME), failed),
        tuple(_models(_args(before.get(APP_NAME)), _args(after.get(APP_NAME)))),
    )


def _application(name: str, before: Config | None, after: Config | None, failed: frozenset[str]) -> Change:
    label = application_label(name)
    if before is None or after is None:
        return Change(label, Effect.ADDED if after is not None else Effect.REMOVED)
    made_from = (*_args_changes(before, after),)
    scale = (*_changes(_scale(before), _scale(after)),)
    if made_from or _scaling_policy(before) != _scaling_policy(after):
        return Change(label, Effect.ANEW, made_from + scale, _note(after))
    if name in failed:
        return Change(label, Effect.RETRIED, scale)
    return Change(label, Effect.IN_PLACE if scale else Effect.UNCHANGED, scale)


def _args_changes(before: Config, after: Config) -> Iterator[KeyChange]:
    yield from _changes({"import_path": before.get("import_path")}, {"import_path": after.get("import_path")})
    yield from _changes(_unnested(_args(before)), _unnested(_args(after)))


def _unnested(args: Config) -> Config:
    """A pool's keys as they stand in the spec: without the section's name, and models apart."""
    pool = args.get("pool")
    rest = {key: value for key, value in args.items() if key not in ("pool", "role", "name")}
    return {**rest, **pool} if isinstance(pool, dict) else rest


def _models(before: Config, after: Config) -> Iterator[Change]:
    old, new = _section(before, "models"), _section(after, "models")
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in old:
            yield Change(name, Effect.ADDED)
        elif name not in new:
            yield Change(name, Effect.REMOVED)
        elif keys := (*_changes(_section(old, name), _section(new, name)),):
            yield Change(name, Effect.CHANGED, keys)


def _changes(before: JsonValue | Config, after: JsonValue | Config, key: str = "") -> Iterator[KeyChange]:
    """The leaves that differ."""
    if isinstance(before, Mapping) or isinstance(after, Mapping):
        left = before if isinstance(before, Mapping) else {}
        right = after if isinstance(after, Mapping) else {}
        for name in [*right, *(name for name in left if name not in right)]:
            yield from _changes(left.get(name), right.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield KeyChange(key, before, after)


def _args(config: Config | None) -> Config:
    return _section(config or {}, "args")


def _scale(config: Config) -> Config:
    """What is written over its one deployment."""
    deployments = config.get("deployments")
    first = deployments[0] if isinstance(deployments, list) and deployments else {}
    return first if isinstance(first, dict) else {}


def _scaling_policy(config: Config) -> JsonValue:
    """Of what is written over a deployment, the one thing for which Serve (2.60) makes it anew."""
    scaling = _scale(config).get("autoscaling_config")
    return [scaling.get("policy")] if isinstance(scaling, dict) else None


def _section(config: Config, key: str) -> Config:
    below = config.get(key)
    return below if isinstance(below, dict) else {}


def _note(config: Config) -> str:
    scale = _scale(config)
    if scale.get("num_replicas") == 1 and not scale.get("max_surge_percent"):
        return "its only replica leaves before the new one is there: see surge_percent, or say 2 replicas"
    return ""


def _shown(value: JsonValue) -> str:
    return "default" if value is None else json.dumps(value)
