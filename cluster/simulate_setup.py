"""From the flags of `heliostat simulate` to what the simulator takes."""

import argparse
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import JsonValue, ValidationError

from heliostat.errors import HeliostatError, SpecError
from heliostat.findings import did_you_mean
from heliostat.spec import Spec
from heliostat.wire import Role
from heliostat.yamllines import parse_yaml
from router.policy import POLICIES
from router.scaling.pools import scales
from simulator.profile import Hardware
from simulator.router import Options
from simulator.scaling import Scaling
from simulator.timing import gpu_named, load_calibration
from simulator.timing.complaints import complaints
from simulator.workload import WorkloadConfig, make_workload
from simulator.workload.base import Workload

_KIND_OF_SUFFIX = {".jsonl": "mooncake", ".csv": "azure"}

LoadName = Literal["rate_per_s", "speed"]

LOAD_LABELS: dict[LoadName, str] = {"rate_per_s": "rate (sessions/s)", "speed": "speed of the trace (x)"}


class Load(NamedTuple):
    """One load of a sweep: what varies, its value, and the workload that it gives."""

    name: LoadName
    value: float
    workload: Workload


def loads(args: argparse.Namespace, spec: Spec) -> list[Load]:
    """One for each rate, or each speed of a trace, in the order given.

    Raises HeliostatError for flags and files that make no workload.
    """
    keys = _keys(args)
    if keys["kind"] in _KIND_OF_SUFFIX.values():
        keys.setdefault("max_model_len", spec.family.max_model_len)
    name: LoadName = "speed" if keys["kind"] in _KIND_OF_SUFFIX.values() else "rate_per_s"
    other, swept = (args.rate, args.speed) if name == "speed" else (args.speed, args.rate)
    if other:
        raise HeliostatError(
            f"--{'rate' if name == 'speed' else 'speed'} means nothing to workload {keys['kind']}; "
            f"use --{'speed' if name == 'speed' else 'rate'}"
        )
    found = []
    for value in swept or [None]:
        given = keys if value is None else keys | {name: value}
        config = _config(given)
        found.append(Load(name, getattr(config, name), make_workload(config, tuple(spec.models))))
    return found


def hardware(args: argparse.Namespace) -> Hardware:
    """What the pools are planned for. Raises HeliostatError for an unknown GPU or a broken calibration."""
    calibration = load_calibration(args.calibration) if args.calibration else None
    return Hardware(gpu=gpu_named(args.gpu), link=args.link, calibration=calibration)


def options(args: argparse.Namespace, spec: Spec) -> Options:
    """How the cluster is run. Raises HeliostatError for a policy that is none, or none of its role, and for
    flags on scaling that do not fit the others."""
    return Options(
        policies=_policies(args.policy),
        routers=args.routers or spec.router.replicas,
        scaling=_scaling(args, spec),
    )


def _scaling(args: argparse.Namespace, spec: Spec) -> Scaling | None:
    if not args.autoscale:
        if args.start:
            raise HeliostatError("--start says how long replicas take to start; it needs --autoscale")
        return None
    if args.find_min_gpus:
        raise HeliostatError("--find-min-gpus tries fixed clusters; leave out --autoscale")
    if not scales(spec):
        raise HeliostatError("--autoscale: no pool can scale; give one `replicas: {min: 1, max: 4}`")
    return Scaling(start_s=args.start)


def _keys(args: argparse.Namespace) -> dict[str, JsonValue]:
    """What the file says, and over it what the flags say."""
    keys = _from_file(args.workload_file) if args.workload_file else {}
    flags: dict[str, JsonValue] = {
        "kind": args.workload,
        "duration_s": args.duration,
        "zipf": args.zipf,
        "trace": str(args.trace) if args.trace else None,
    }
    keys |= {key: value for key, value in flags.items() if value is not None}
    by_suffix = _KIND_OF_SUFFIX.get(args.trace.suffix) if args.trace else "poisson"
    if "kind" not in keys and by_suffix is None:
        raise HeliostatError(f"--trace {args.trace}: which kind is it? add --workload mooncake or azure")
    return {"kind": by_suffix} | keys


def _from_file(path: Path) -> dict[str, JsonValue]:
    try:
        document = parse_yaml(path.read_text())
    except OSError as error:
        raise SpecError(str(path), (f"cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), ("not UTF-8 text; save it as UTF-8",)) from error
    if document.problems:
        raise SpecError(str(path), tuple(f"{each.line}: {each.message}" for each in document.problems))
    if not isinstance(document.value, dict):
        raise SpecError(str(path), ("1: a workload file holds keys with values, beginning with `kind`",))
    keys = dict(document.value)
    if isinstance(trace := keys.get("trace"), str):
        keys["trace"] = str(path.parent / trace)  # as a spec's own paths: from where the file is
    return keys


def _config(keys: dict[str, JsonValue]) -> WorkloadConfig:
    try:
        return WorkloadConfig.model_validate(keys)
    except ValidationError as error:
        raise HeliostatError(f"the workload: {complaints(error)}") from error


def _policies(text: str | None) -> dict[Role, str]:
    found: dict[Role, str] = {}
    for part in text.split(",") if text else ():
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or role not in list(Role):
            raise HeliostatError(f"--policy {text}: write it as prefill=NAME,decode=NAME, or one of the two")
        known = [policy for policy, entry in POLICIES.items() if Role(role) in entry.roles]
        if name not in known:
            raise HeliostatError(
                f"--policy {text}: no {role} policy `{name}`; {did_you_mean(name, known, f'{role} policies')}"
            )
        found[Role(role)] = name
    return found
