"""`python -m cluster.helm.write [FOLDER]`: the chart's generated files; `scripts/helm-files` calls it."""

import json
import sys
from pathlib import Path

from pydantic import JsonValue

from cluster.helm.schema import values_schema
from cluster.helm.shape import spec_shape

CHART = Path(__file__).parents[2] / "helm" / "heliostat"


def chart_files() -> dict[str, str]:
    """Path in the chart, and content."""
    return {"values.schema.json": _json(values_schema()), "files/spec.json": _json(spec_shape())}


def _json(value: JsonValue) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def main(folder: Path = CHART) -> None:
    for name, content in chart_files().items():
        (folder / name).write_text(content)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
