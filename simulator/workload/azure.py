"""Azure's LLM inference traces (github.com/Azure/AzurePublicDataset): times and lengths, nothing of prefixes.

CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens. No two prompts share a block, so a prefix
cache finds nothing: for questions about sharing prefixes take another workload.
"""

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from heliostat.errors import SpecError
from simulator.workload.popularity import Assign
from simulator.workload.replay import Replay, Selection, TraceRequest, make_replay

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def load_azure(
    path: Path,
    models: tuple[str, ...],
    selection: Selection | None = None,
    assign: Assign = "zipf",
    zipf: float = 1.0,
    block_tokens: int = 16,
) -> Replay:
    """The trace in `path`; its first line is at 0 s. By turns, the models simply alternate.

    Raises SpecError with file and line if the file cannot be read, is not such a trace, or nothing is left.
    """
    try:
        # A byte order mark, as spreadsheets write it, is not a part of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            requests = list(_requests(path, file))
    except OSError as error:
        raise SpecError(str(path), (f"cannot be read: {error.strerror}",)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(str(path), (f"is not CSV in UTF-8; {_remedy()}",)) from error
    return make_replay(path, requests, selection or Selection(), models, block_tokens, assign, zipf)


def _remedy() -> str:
    return f"Azure's trace begins with the line {','.join(_COLUMNS)}"


def _requests(path: Path, lines: Iterable[str]) -> Iterator[TraceRequest]:
    rows = csv.reader(lines)
    header: list[str] = next(rows, [])
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise SpecError(str(path), (f"1: no column {' and no column '.join(missing)}; {_remedy()}",))
    places = [header.index(column) for column in _COLUMNS]
    begin: datetime | None = None
    for row in rows:
        if not row:
            continue
        place = f"{rows.line_num}: "
        if len(row) <= max(places):
            raise SpecError(
                str(path), (f"{place}{len(row)} values under {len(header)} columns; complete it",)
            )
        when, prompt, output = (row[index] for index in places)
        try:
            at = datetime.fromisoformat(when)
        except ValueError as error:
            wanted = "a time like 2023-11-16 18:17:03.9799600"
            raise SpecError(str(path), (f"{place}TIMESTAMP: {when!r} is not {wanted}",)) from error
        # Azure's later traces name the zone (UTC), the first one does not.
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        begin = begin or at
        yield TraceRequest(
            (at - begin).total_seconds(),
            _tokens(path, place + _COLUMNS[1], prompt),
            _tokens(path, place + _COLUMNS[2], output),
        )


def _tokens(path: Path, place: str, text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise SpecError(str(path), (f"{place}: {text!r} is not a whole number of at least 1; correct the line",))
