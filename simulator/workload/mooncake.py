"""Mooncake's traces (github.com/kvcache-ai/Mooncake, FAST25-release/traces): times, lengths, and prefixes.

One JSON object per line: `timestamp` in ms, `input_length`, `output_length`, and `hash_ids`, which name the
prompt's blocks of 512 tokens. An id stands for its block and all before it, so `hash_ids` are block names as
they are. In the conversation trace there is one for each block, the partly filled last one included; where a
line has fewer, the blocks at the end count as unlike any other. Nothing says which later prompt contains an
answer other than by its ids, so no answer is kept (`Call.kept_blocks`).
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heliostat.errors import SpecError
from simulator.workload.blocks import num_blocks
from simulator.workload.popularity import Assign
from simulator.workload.replay import Replay, Selection, TraceRequest, make_replay

BLOCK_TOKENS = 512

_REMEDY = (
    'a line of Mooncake\'s trace is {"timestamp": MS, "input_length": N, "output_length": N, '
    '"hash_ids": [ID, ...]}'
)


class _Line(BaseModel):
    # Some publishers add columns; these four say all that is replayed.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    timestamp: float = Field(ge=0)
    input_length: int = Field(ge=1)
    output_length: int = Field(ge=1)
    hash_ids: tuple[int, ...]


class _Groups:
    """Numbers for prefix groups, in the order in which they appear."""

    def __init__(self, prefix_blocks: int) -> None:
        self._prefix_blocks = prefix_blocks
        self._numbers: dict[tuple[int, ...], int] = {}

    def number(self, blocks: tuple[int, ...]) -> int:
        return self._numbers.setdefault(blocks[: self._prefix_blocks], len(self._numbers))


def load_mooncake(
    path: Path,
    models: tuple[str, ...],
    selection: Selection | None = None,
    assign: Assign = "zipf",
    zipf: float = 1.0,
    common_blocks: int = 1,
    group_blocks: int = 1,
) -> Replay:
    """The trace in `path`.

    A prefix group, the nearest thing to a conversation that the trace shows, is what shares its first
    `group_blocks` blocks beyond the first `common_blocks`, which hold the system prompt: one block in the
    conversation trace, where it opens every request. A conversation whose first prompt ends within these
    blocks begins another group as it grows.

    Raises SpecError with file and line if the file cannot be read, is not such a trace, or nothing is left.
    """
    groups = _Groups(common_blocks + group_blocks)
    try:
        with path.open(encoding="utf-8") as file:
            requests = [_request(path, n, text, groups) for n, text in enumerate(file, 1) if text.strip()]
    except OSError as error:
        raise SpecError(str(path), (f"cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), (f"is not UTF-8 text; {_REMEDY}",)) from error
    return make_replay(path, requests, selection or Selection(), models, BLOCK_TOKENS, assign, zipf)


def _request(path: Path, number: int, text: str, groups: _Groups) -> TraceRequest:
    try:
        line = _Line.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = f"{first['loc'][0]}: " if first["loc"] else ""
        raise SpecError(str(path), (f"{number}: {key}{first['msg']}; {_REMEDY}",)) from error
    blocks = num_blocks(line.input_length, BLOCK_TOKENS)
    if len(line.hash_ids) > blocks:
        found = f"{len(line.hash_ids)} ids for {line.input_length} tokens, which fill {blocks} blocks"
        remedy = f"give a trace with blocks of {BLOCK_TOKENS} tokens"
        raise SpecError(str(path), (f"{number}: hash_ids: {found}; {remedy}",))
    group = groups.number(line.hash_ids)
    return TraceRequest(line.timestamp / 1000.0, line.input_length, line.output_length, line.hash_ids, group)
