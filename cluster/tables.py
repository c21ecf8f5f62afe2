"""What the tables of figures have in common."""

from rich import box
from rich.table import Table


def figures_table(title: str | None, *columns: str, text_columns: int = 1) -> Table:
    """The first columns hold text, the others figures."""
    table = Table(
        title=title or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < text_columns else "right", no_wrap=True)
    return table
