"""Write the made parts into the pages, and the pictures beside them.

python -m docs.site.write
"""

from pathlib import Path

from docs.site.parts import ROOT, Maker, fill
from docs.site.pictures import pictures
from docs.site.result_tables import figures_table, goals_table, runs_table
from docs.site.spec_tables import spec_table

MAKERS: dict[str, Maker] = {
    "spec": spec_table,
    "runs": runs_table,
    "goals": goals_table,
    "figures": figures_table,
}
"""Who makes a part, by the first word of its mark."""


def made(page: Path) -> str:
    """The page's text with its parts made anew. Raises HeliostatError where a mark names nothing."""
    return fill(page.read_text(encoding="utf-8"), MAKERS, str(page))


def files() -> dict[Path, str]:
    """Every file that is made, whole or in part, and what it should hold."""
    drawn = {ROOT / "docs" / "concepts" / name: svg for name, svg in pictures().items()}
    return drawn | {page: made(page) for page in sorted((ROOT / "docs").rglob("*.md"))}


def main() -> None:
    """Write what has changed."""
    for file, text in files().items():
        if not file.exists() or text != file.read_text(encoding="utf-8"):
            file.write_text(text, encoding="utf-8")
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
