"""The tables of docs/scale.md, from the committed figures alone.

python -m benchmarks.scale_tables
"""

import re
from collections.abc import Iterable, Sequence

from benchmarks.report import REPOSITORY, Metric, Report
from benchmarks.scale import OUT
from benchmarks.scale_parts import KEYS, SIDES
from heliostat.errors import HeliostatError

Metrics = dict[str, Metric]

PAGE = REPOSITORY / "docs" / "scale.md"


def tables(report: Report) -> dict[str, str]:
    """Markdown by the name that the page gives its place."""
    metrics = report.metrics
    where = (
        f"{report.machine}; commit {report.commit}; {report.date}; medians of up to {report.rounds} seeds."
    )
    return {
        "origin": f"From [benchmarks/results/scale.json](../benchmarks/results/scale.json): {where}",
        "speed": _speed(metrics),
        "local": _local(metrics),
        "beats": _beats(metrics),
        "costs": _costs(metrics),
        "limits": _limits(metrics),
    }


def fill(page: str, report: Report) -> str:
    """The page with these tables in their places. Raises HeliostatError where one has none."""
    for name, table in tables(report).items():
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        match = place.search(page)
        if match is None:
            raise HeliostatError(f"no place for `{name}`; add <!-- {name} --> and <!-- /{name} -->")
        page = f"{page[: match.start()]}\n{table}\n\n{page[match.end() :]}"
    return page


def _speed(metrics: Metrics) -> str:
    rows = [(f"`{key}`", _number(metrics[key].value), metrics[key].unit) for key in _keys(metrics, "speed_")]
    return _table(("figure", "value", "unit"), rows)


def _local(metrics: Metrics) -> str:
    """One row per size, routers and policy."""
    settings = dict.fromkeys(
        match[0]
        for key in metrics
        if (match := re.match(r"local_(\d+)x(\d+)_(" + "|".join(SIDES) + ")(?=_)", key))
    )
    rows = []
    for setting in settings:
        where, _, side = setting.removeprefix("local_").partition("_")
        size, _, routers = where.partition("x")
        ratio = metrics[f"{setting}_tpot_p99"]
        over = f"{ratio.value / ratio.peer:.2f}" if ratio.peer else ""
        rows.append((size, routers, side, *_knowledge(metrics, setting), over))
    return _table(("decode replicas", "routers", "policy", *KEYS, "tpot_p99 over 1 router"), rows)


def _beats(metrics: Metrics) -> str:
    settings = sorted({key.split("_")[1] for key in _keys(metrics, "beat_")}, key=lambda beat: int(beat[:-2]))
    rows = [(beat.replace("ms", " ms"), *_knowledge(metrics, f"beat_{beat}")) for beat in settings]
    return _table(("beat", *KEYS), rows)


def _costs(metrics: Metrics) -> str:
    rows = [(f"`{key}`", _number(metrics[key].value), metrics[key].unit) for key in _keys(metrics, "cost_")]
    return _table(("figure", "value", "unit"), rows)


def _limits(metrics: Metrics) -> str:
    names = [
        key.removesuffix("_routers") for key in _keys(metrics, "limit_") if key.endswith("_replicas_routers")
    ]
    rows = []
    for name in names:
        row = [name.split("_")[1]]
        for variant in (name, f"{name}_without_kv_events"):
            needed = int(metrics[f"{variant}_routers"].value)
            row += [f"{needed}" if needed else "none is enough"]
            row += [f"{metrics[f'{variant}_fixed_share'].value:.2f}"]
        rows.append(row)
    heads = ("replicas", "routers", "fixed share", "routers without KV events", "fixed share without")
    return _table(heads, rows)


def _knowledge(metrics: Metrics, setting: str) -> list[str]:
    return [_number(metrics[f"{setting}_{key}"].value) for key in KEYS]


def _keys(metrics: Metrics, prefix: str) -> list[str]:
    return [key for key in metrics if key.startswith(prefix)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    report = Report.model_validate_json(OUT.read_text())
    PAGE.write_text(fill(PAGE.read_text(), report))


if __name__ == "__main__":
    main()
