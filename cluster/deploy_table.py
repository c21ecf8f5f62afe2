"""A diff for people."""

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.deploy_diff import Change, Diff, Effect

MEANING = {
    Effect.UNCHANGED: "unchanged",
    Effect.IN_PLACE: "changed in place",
    Effect.ANEW: "made anew, a replica at a time",
    Effect.ADDED: "added",
    Effect.REMOVED: "removed",
    Effect.RETRIED: "tried again",
    Effect.CHANGED: "changed",
}


def render_diff(diff: Diff, console: Console) -> None:
    """One row per pool, the routers, and every model that changes."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("", "", "because of"):
        table.add_column(heading, overflow="fold")
    for change in (*diff.pools, _routers(diff)):
        table.add_row(change.name, MEANING[change.effect], _because(change))
    for change in diff.models:
        table.add_row(f"model {change.name}", MEANING[change.effect], _because(change))
    console.print(table)


def _routers(diff: Diff) -> Change:
    """What the rows of models and pools say already is left out of theirs."""
    said = {f"{change.name}." for change in diff.pools if change.effect is not Effect.UNCHANGED}
    said |= {"models."}
    keys = tuple(key for key in diff.routers.keys if not key.key.startswith(tuple(said)))
    return Change(diff.routers.name, diff.routers.effect, keys, diff.routers.note)


def _because(change: Change) -> str:
    return "\n".join([*map(str, change.keys), *([change.note] if change.note else [])])
