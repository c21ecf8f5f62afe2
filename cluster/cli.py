"""The `heliostat` command; each of its commands is a file beside this one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import heliostat
from cluster import (
    calibrate_args,
    dashboards_args,
    deploy_args,
    finetune_args,
    models_args,
    quantize_args,
)
from cluster.simulate_args import add_arguments
from heliostat.errors import HeliostatError

DEFAULT_PORT = 8000
DEFAULT_HOST = "127.0.0.1"
INTERRUPTED = 130
"""The shell's exit status for a command that Ctrl-C ended."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="heliostat", description="Many fine-tuned models from shared pools.")
    top.add_argument("--version", action="version", version=f"heliostat {heliostat.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve a spec in the foreground until Ctrl-C")
    serve.add_argument("spec", type=Path, help="the cluster's spec file (YAML)")
    serve.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=DEFAULT_PORT, help="port (default: %(default)s)")

    serve.add_argument(
        "--ray",
        default="auto",
        metavar="ADDRESS",
        help="Ray cluster to use; `auto`: the one that runs here, else a local one of our own; `local`: "
        "always one of our own (default: %(default)s)",
    )

    plan = commands.add_parser("plan", help="check a spec and say what its models share")
    plan.add_argument("spec", type=Path, help="the cluster's spec file (YAML)")
    plan.add_argument("--json", action="store_true", help="machine-readable")

    deploy = commands.add_parser(
        "deploy",
        help="put a spec on a Ray cluster that runs, or change what is there",
        description="Put a spec on a Ray cluster through its dashboard, and wait until it answers. What the "
        "spec does not change goes on as it is, and no request fails. Other applications on its Serve stay.",
    )
    deploy_args.add_deploy_arguments(deploy)

    diff = commands.add_parser(
        "diff",
        help="what `deploy` of a spec would change",
        description="Say what `deploy` would do. Exit status: 0 nothing, 1 something, 2 an error.",
    )
    deploy_args.add_diff_arguments(diff)

    down = commands.add_parser(
        "down",
        help="remove what `deploy` put on a Ray cluster, and nothing else",
    )
    deploy_args.add_down_arguments(down)

    commands.add_parser(
        "env",
        help="the environment that Ray must have on every node",
        description='Print Serve\'s environment as shell commands: `eval "$(heliostat env)"` before '
        "`ray start`. What is set already stays.",
    )

    simulate = commands.add_parser(
        "simulate",
        help="what a spec would do under a workload, without a GPU",
        description="Run a spec under a workload in virtual time, with the router's own policies: latencies, "
        "goodput, and how few GPUs would do. Needs no GPU.",
    )
    add_arguments(simulate)

    calibrate = commands.add_parser(
        "calibrate",
        help="measure one model's engines here, for the simulator",
        description="Start one model's prefill and decode engines, measure them, and write a calibration "
        "file for `heliostat simulate --calibration`.",
    )
    calibrate_args.add_arguments(calibrate)

    finetune = commands.add_parser(
        "finetune",
        help="train a module that fits the others",
        description="Train a prefill or decode module, or one for both roles, from a base and samples, and "
        "measure it on held-out ones; docs/modules.md says which to choose.",
    )
    finetune_args.add_arguments(finetune)

    quantize = commands.add_parser(
        "quantize",
        help="make a decode module in few bits, for QSUN",
        description="Quantize a base's weights; `heliostat finetune qsun` trains prefill modules against it.",
    )
    quantize_args.add_arguments(quantize)

    models = commands.add_parser(
        "models",
        help="list, add and remove models of a running cluster",
        description="Models come and go while a cluster runs, with adapters that its pools load.",
    )
    models_args.add_arguments(models)

    dashboards = commands.add_parser(
        "dashboards",
        help="the Grafana dashboard and Prometheus' rules, as files or pushed",
        description="What an operator sees of a cluster: docs/observability.md says what it shows.",
    )
    dashboards_args.add_arguments(dashboards)

    status = commands.add_parser(
        "status", help="pools, replicas, queue, running, KV use of a running cluster"
    )
    status.add_argument("--url", default=f"http://{DEFAULT_HOST}:{DEFAULT_PORT}", help="default: %(default)s")
    status.add_argument("--json", action="store_true", help="machine-readable")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error for people is one paragraph on stderr and exit status 1."""
    args = parser().parse_args(argv)
    try:
        return _COMMANDS[args.command](args)
    except HeliostatError as error:
        print(f"heliostat: {error}", file=sys.stderr)
        return _TROUBLE.get(args.command, 1)
    except ModuleNotFoundError as error:
        print(f"heliostat: {error}; this command needs `heliostat[{_EXTRAS[args.command]}]`", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


# Commands import their own floor: `heliostat plan` must not wait for Ray.


def _serve(args: argparse.Namespace) -> int:
    from cluster.serve_environment import set_serve_environment

    set_serve_environment()  # before Ray Serve is imported
    from cluster.serve import serve

    return serve(args.spec, args.host, args.port, args.ray)


def _plan(args: argparse.Namespace) -> int:
    from rich.console import Console

    from cluster.plan import make_plan
    from cluster.plan_table import render_plan
    from heliostat.specfile import load_spec

    plan = make_plan(load_spec(args.spec), str(args.spec))
    if args.json:
        print(plan.to_json())
    else:
        render_plan(plan, Console())
    return 0


def _deploy(args: argparse.Namespace) -> int:
    from cluster.deploy import deploy_command

    return deploy_command(args)


def _diff(args: argparse.Namespace) -> int:
    from cluster.deploy import diff_command

    return diff_command(args)


def _down(args: argparse.Namespace) -> int:
    from cluster.deploy import down_command

    return down_command(args)


def _env(args: argparse.Namespace) -> int:
    import shlex

    from cluster.serve_environment import node_environment

    for name, value in node_environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from cluster.simulate import simulate_command

    return simulate_command(args)


def _calibrate(args: argparse.Namespace) -> int:
    from cluster.calibrate import calibrate_command

    return calibrate_command(args)


def _finetune(args: argparse.Namespace) -> int:
    from cluster.finetune import finetune_command

    return finetune_command(args)


def _quantize(args: argparse.Namespace) -> int:
    from cluster.quantize import quantize_command

    return quantize_command(args)


def _models(args: argparse.Namespace) -> int:
    from cluster.models import models_command

    return models_command(args)


def _dashboards(args: argparse.Namespace) -> int:
    from cluster.dashboards.command import dashboards_command

    return dashboards_command(args)


def _status(args: argparse.Namespace) -> int:
    from cluster.status import show_status

    return show_status(args.url, as_json=args.json)


_TROUBLE = {"diff": 2}
"""Exit statuses of errors that are not 1."""

_EXTRAS = {
    "serve": "server",
    "deploy": "server",
    "diff": "server",
    "down": "server",
    "env": "server",
    "plan": "server",
    "calibrate": "server",
    "simulate": "simulate",
    "status": "server",
    "models": "server",
    "dashboards": "server",
    "finetune": "finetune",
    "quantize": "finetune",
}
"""What to install for a command whose libraries are missing."""

_COMMANDS = {
    "serve": _serve,
    "plan": _plan,
    "calibrate": _calibrate,
    "deploy": _deploy,
    "diff": _diff,
    "down": _down,
    "env": _env,
    "simulate": _simulate,
    "status": _status,
    "models": _models,
    "dashboards": _dashboards,
    "finetune": _finetune,
    "quantize": _quantize,
}

if __name__ == "__main__":
    sys.exit(main())
