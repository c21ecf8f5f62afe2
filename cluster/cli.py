"""The `heliostat` command: a table of its commands, each of which is a file beside this one.

A command's own file is imported when it runs: `heliostat plan` must not wait for Ray.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

import heliostat
from cluster import (
    bench_args,
    calibrate_args,
    chat_args,
    dashboards_args,
    deploy_args,
    finetune_args,
    models_args,
    quantize_args,
    serve_args,
    simulate_args,
)
from cluster.tame import tame
from heliostat.errors import HeliostatError

INTERRUPTED = 130
"""The shell's exit status for a command that Ctrl-C ended."""


class Command(NamedTuple):
    """`run` is `module:function`, which takes the parsed arguments and returns the exit status.

    `extra` is what to install where its libraries are missing, `trouble` the exit status of an error.
    """

    run: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None] | None = None
    description: str | None = None
    extra: str = "server"
    trouble: int = 1


COMMANDS = {
    "serve": Command(
        "cluster.serve_environment:serve_command",
        "serve a spec in the foreground until Ctrl-C",
        serve_args.add_serve_arguments,
    ),
    "plan": Command(
        "cluster.plan_table:plan_command",
        "check a spec and say what its models share",
        serve_args.add_plan_arguments,
    ),
    "deploy": Command(
        "cluster.deploy:deploy_command",
        "put a spec on a Ray cluster that runs, or change what is there",
        deploy_args.add_deploy_arguments,
        "Put a spec on a Ray cluster through its dashboard, and wait until it answers. What the "
        "spec does not change goes on as it is, and no request fails. Other applications on its Serve stay.",
    ),
    "diff": Command(
        "cluster.deploy:diff_command",
        "what `deploy` of a spec would change",
        deploy_args.add_diff_arguments,
        "Say what `deploy` would do. Exit status: 0 nothing, 1 something, 2 an error.",
        trouble=2,
    ),
    "down": Command(
        "cluster.deploy:down_command",
        "remove what `deploy` put on a Ray cluster, and nothing else",
        deploy_args.add_down_arguments,
    ),
    "env": Command(
        "cluster.serve_environment:env_command",
        "the environment that Ray must have on every node",
        description='Print Serve\'s environment as shell commands: `eval "$(heliostat env)"` before '
        "`ray start`. What is set already stays.",
    ),
    "simulate": Command(
        "cluster.simulate:simulate_command",
        "what a spec would do under a workload, without a GPU",
        simulate_args.add_arguments,
        "Run a spec under a workload in virtual time, with the router's own policies: latencies, "
        "goodput, and how few GPUs would do. Needs no GPU.",
        extra="simulate",
    ),
    "calibrate": Command(
        "cluster.calibrate:calibrate_command",
        "measure one model's engines here, for the simulator",
        calibrate_args.add_arguments,
        "Start one model's prefill and decode engines, measure them, and write a calibration "
        "file for `heliostat simulate --calibration`.",
    ),
    "finetune": Command(
        "cluster.finetune:finetune_command",
        "train a module that fits the others",
        finetune_args.add_arguments,
        "Train a prefill or decode module, or one for both roles, from a base and samples, and "
        "measure it on held-out ones; docs/modules.md says which to choose.",
        extra="finetune",
    ),
    "quantize": Command(
        "cluster.quantize:quantize_command",
        "make a decode module in few bits, for QSUN",
        quantize_args.add_arguments,
        "Quantize a base's weights; `heliostat finetune qsun` trains prefill modules against it.",
        extra="finetune",
    ),
    "models": Command(
        "cluster.models:models_command",
        "list, add and remove models of a running cluster",
        models_args.add_arguments,
        "Models come and go while a cluster runs, with adapters that its pools load.",
    ),
    "dashboards": Command(
        "cluster.dashboards.command:dashboards_command",
        "the Grafana dashboard and Prometheus' rules, as files or pushed",
        dashboards_args.add_arguments,
        "What an operator sees of a cluster: docs/observability.md says what it shows.",
    ),
    "chat": Command(
        "cluster.chat:chat_command",
        "talk to the models of a running cluster, or of any OpenAI-compatible server",
        chat_args.add_arguments,
        "Ask models in a terminal, one after the other over the same conversation, and see what each answer "
        "took. Over a pipe: one line, one answer.",
        extra="cli",
    ),
    "bench": Command(
        "cluster.bench:bench_command",
        "put a load on a running cluster, or on any OpenAI-compatible server, and measure it",
        bench_args.add_arguments,
        "Ask many things at once, in a closed or an open loop, and say how they were answered: latencies, "
        "rates, failures, what caches saved. Exit status: 0 all answered, 1 some not.",
        extra="cli",
    ),
    "status": Command(
        "cluster.status:status_command",
        "pools, replicas, queue, running, KV use of a running cluster",
        serve_args.add_status_arguments,
    ),
}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="heliostat", description="Many fine-tuned models from shared pools.")
    top.add_argument("--version", action="version", version=f"heliostat {heliostat.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        of_it = commands.add_parser(name, help=command.help, description=command.description)
        if command.arguments is not None:
            command.arguments(of_it)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error for people is one paragraph on stderr and an exit status of its own."""
    args = parser().parse_args(argv)
    command = COMMANDS[args.command]
    module, _, function = command.run.partition(":")
    try:
        status: int = getattr(import_module(module), function)(args)
        return status
    except HeliostatError as error:
        print(f"heliostat: {tame(str(error))}", file=sys.stderr)  # a server may have said it
        return command.trouble
    except ModuleNotFoundError as error:
        print(f"heliostat: {error}; this command needs `heliostat[{command.extra}]`", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
