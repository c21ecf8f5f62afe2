"""`heliostat deploy`, `diff` and `down`: a spec on a Ray cluster that runs, through Serve's REST API."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from cluster.deploy_config import Ours, Step, body, find_ours, steps, wanted
from cluster.deploy_diff import Config, Diff, make_diff
from cluster.deploy_progress import front_door, wait_until_there
from cluster.deploy_table import render_diff
from cluster.plan import make_plan
from cluster.progress import wait_until_ready
from cluster.serve_api import ServeApi, ServeDetails
from heliostat.errors import HeliostatError
from heliostat.specfile import load_spec

SAME, DIFFERENT = 0, 1
"""Exit statuses of `heliostat diff`; 2 is an error, as diff(1) has it."""


def deploy_command(args: argparse.Namespace) -> int:
    """Put the spec on the cluster and wait until it answers. Raises HeliostatError."""
    console = Console(highlight=False, soft_wrap=True)
    api = ServeApi(args.address)
    details, ours, after, diff = _compare(api, args.spec)
    if not diff.changes:
        console.print("nothing to do: the cluster serves this spec already")
        return 0
    render_diff(diff, console)
    todo = steps(ours.before, after)
    if not args.wait:
        api.put(body(todo[-1], ours, details, args.host, args.port))
        console.print("begun; not waiting (`heliostat status` and `heliostat diff` say how it goes)")
        return 0
    try:
        for step in todo:
            details = _take(api, step, ours, details, args, console)
    except KeyboardInterrupt:
        console.print("interrupted: what was begun goes on; deploy again to finish")
        raise
    _check_front_door(args, details, console)
    return 0


def diff_command(args: argparse.Namespace) -> int:
    """What `deploy` would do, without doing it; 0 when nothing, 1 when something."""
    *_, diff = _compare(ServeApi(args.address), args.spec)
    if args.json:
        print(diff.to_json())
    else:
        render_diff(diff, Console(highlight=False, soft_wrap=True))
    return DIFFERENT if diff.changes else SAME


def down_command(args: argparse.Namespace) -> int:
    """Remove our applications and nothing else."""
    console = Console(highlight=False, soft_wrap=True)
    api = ServeApi(args.address)
    details = api.details()
    ours = find_ours(details)
    if not ours.before:
        console.print("nothing to do: no spec is deployed there")
        return 0
    api.put(body(None, ours, details))
    if args.wait:
        wait_until_there(api.details, (), ours.before, console, timeout_s=args.timeout)
    others = f"; {len(ours.others)} applications of others stay" if ours.others else ""
    console.print(f"{'removed' if args.wait else 'begun'}: {len(ours.before)} applications{others}")
    return 0


def _compare(api: ServeApi, path: Path) -> tuple[ServeDetails, Ours, Mapping[str, Config], Diff]:
    """The spec against what runs. Raises HeliostatError, SpecError: contract before traffic (rule 7)."""
    spec = load_spec(path)
    make_plan(spec, str(path))
    details = api.details()
    ours = find_ours(details)
    after = wanted(spec, ours, details)
    return details, ours, after, make_diff(ours.before, after, ours.failed)


def _take(
    api: ServeApi, step: Step, ours: Ours, details: ServeDetails, args: argparse.Namespace, console: Console
) -> ServeDetails:
    api.put(body(step, ours, details, args.host, args.port))
    return wait_until_there(api.details, step.applications, step.removed, console, timeout_s=args.timeout)


def _check_front_door(args: argparse.Namespace, details: ServeDetails, console: Console) -> None:
    """Serve says that all runs; whether clients get an answer, only an answer shows."""
    url = args.url or front_door(args.address, details.http_options)
    if url is None:
        console.print(
            "deployed; Serve listens on its nodes' 127.0.0.1 alone, which is not reached from here "
            "(--host 0.0.0.0 when Serve is started opens it)"
        )
        return
    try:
        wait_until_ready(url)
    except HeliostatError as error:
        raise HeliostatError(f"{error}; if clients reach the routers elsewhere, say --url") from error
    console.print(f"ready: {url}/v1")
