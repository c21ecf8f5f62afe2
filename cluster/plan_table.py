"""A plan as tables in a terminal: legible at 100 columns and without colours."""

import argparse
import os.path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.plan import Plan, PoolPlan, Span, make_plan
from heliostat.specfile import load_spec
from heliostat.wire import Role

_NUMBERS = {"replicas", "GPUs", "this spec", "dedicated", "saved"}
"""Columns that are set flush right."""


def plan_command(args: argparse.Namespace) -> int:
    """`heliostat plan`. Raises HeliostatError for a spec that cannot be served."""
    plan = make_plan(load_spec(args.spec), str(args.spec))
    if args.json:
        print(plan.to_json())
    else:
        render_plan(plan, Console())
    return 0


def render_plan(plan: Plan, console: Console) -> None:
    """Print the pools, the models and the totals."""
    root = _common_folder(plan)
    console.print(_pools(plan, root))
    if root:
        console.print(
            f"weights that begin with ./ are in {root}\n", soft_wrap=True, highlight=False, markup=False
        )
    console.print(_models(plan))
    console.print(_totals(plan))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    return table


def _pools(plan: Plan, root: str | None) -> Table:
    table = _table("Pools", "role", "pool", "weights", "KV domain", "replicas", "GPUs", "models")
    for pool in plan.pools:
        weights = f"./{os.path.relpath(pool.weights, root)}" if root and _is_local(pool) else pool.weights
        table.add_row(
            pool.role,
            pool.name,
            escape(weights) + _adapters(pool),  # a directory may hold brackets, which rich reads as markup
            _domain(pool),
            _span(pool.replicas),
            _span(pool.gpus),
            ", ".join(pool.models) or "(unused)",
        )
    return table


def _models(plan: Plan) -> Table:
    table = _table("Models", "model", "prefill", "decode", "shares")
    for model in plan.models:
        table.add_row(
            model.name,
            _with(model.prefill, model.prefill_adapter),
            _with(model.decode, model.decode_adapter),
            " + ".join(model.shares),
        )
    return table


def _with(pool: str, adapter: str | None) -> str:
    return f"{pool} + {adapter}" if adapter else pool


def _totals(plan: Plan) -> Table:
    totals = plan.totals
    table = _table("Totals", "", "this spec", "dedicated", "saved")
    for what, here, dedicated, saved in (
        ("replicas", totals.replicas, totals.dedicated_replicas, totals.replicas_saved),
        ("GPUs", totals.gpus, totals.dedicated_gpus, totals.gpus_saved),
    ):
        table.add_row(what, _span(here), _span(dedicated), _span(saved))
    return table


def _adapters(pool: PoolPlan) -> str:
    number = len(pool.adapters)
    return f" + {number} adapter{'s' if number > 1 else ''}" if number else ""


def _domain(pool: PoolPlan) -> str:
    if pool.role is Role.DECODE:
        return "-"
    return pool.domain or "after download"


def _span(span: Span) -> str:
    return str(span.min) if span.min == span.max else f"{span.min} to {span.max}"


def _is_local(pool: PoolPlan) -> bool:
    return os.path.isabs(pool.weights)


def _common_folder(plan: Plan) -> str | None:
    """The folder that holds all local weights, so that a row shows what differs."""
    folders = [os.path.dirname(pool.weights) for pool in plan.pools if _is_local(pool)]
    return os.path.commonpath(folders) if folders else None
