from pathlib import Path

import pytest

from heliostat.errors import SpecError
from simulator.workload.azure import load_azure
from simulator.workload.replay import Selection

MODELS = ("a", "b")
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
LINES = (
    "2023-11-16 18:17:03.9799600,4808,10",
    "2023-11-16 18:17:04.0319600,40,8",
    "2023-11-16 18:17:13.9799600,110,27",
)


def write(path: Path, *lines: str, end: str = "\r\n") -> Path:
    path.write_text(end.join(lines), newline="")
    return path


def test_times_are_since_the_first_line(tmp_path: Path) -> None:
    replay = load_azure(write(tmp_path / "trace.csv", HEADER, *LINES), MODELS, Selection(speed=2.0))
    sessions = list(replay.sessions(1))
    assert [session.at_s for session in sessions] == pytest.approx([0.0, 0.026, 5.0])
    assert [(s.calls[0].prompt_tokens, s.calls[0].output_tokens) for s in sessions] == [
        (4808, 10),
        (40, 8),
        (110, 27),
    ]
    assert replay.duration_s == 5.0
    assert replay.description == "3 requests of trace.csv at 2x speed; 2 models by Zipf 1"


def test_no_two_prompts_share_a_block(tmp_path: Path) -> None:
    replay = load_azure(write(tmp_path / "trace.csv", HEADER, *LINES), MODELS)
    blocks = [session.calls[0].blocks for session in replay.sessions(1)]
    assert [len(names) for names in blocks] == [301, 3, 7]
    assert len({name for names in blocks for name in names}) == 311


def test_by_turns_the_models_alternate(tmp_path: Path) -> None:
    replay = load_azure(write(tmp_path / "trace.csv", HEADER, *LINES), MODELS, assign="turns")
    assert [session.calls[0].model for session in replay.sessions(1)] == ["a", "b", "a"]
    assert {session.name for session in replay.sessions(1)} == {""}


def test_times_with_a_zone_and_other_columns_are_read(tmp_path: Path) -> None:
    lines = ("2024-05-10 00:00:00.009930+00:00,x,5,6", "2024-05-10 00:00:01.009930+00:00,y,7,8")
    path = write(tmp_path / "trace.csv", "TIMESTAMP,Kind,ContextTokens,GeneratedTokens", *lines, end="\n")
    assert [session.at_s for session in load_azure(path, MODELS).sessions(1)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("a,b",), "trace.csv:1: no column TIMESTAMP and no column ContextTokens"),
        ((HEADER, LINES[0], "2023-11-16 18:17:04,40"), "trace.csv:3: 2 values under 3 columns"),
        ((HEADER, "yesterday,40,8"), "trace.csv:2: TIMESTAMP: 'yesterday'"),
        ((HEADER, "2023-11-16 18:17:04,40.5,8"), "trace.csv:2: ContextTokens: '40.5'"),
        ((HEADER, "2023-11-16 18:17:04,40,0"), "trace.csv:2: GeneratedTokens: '0'"),
        ((HEADER,), "trace.csv: holds no request"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_azure(write(tmp_path / "trace.csv", *lines), MODELS)
    assert says in str(raised.value)
