import json
from pathlib import Path

import pytest

from heliostat.errors import SpecError
from simulator.workload.base import Call
from simulator.workload.mooncake import load_mooncake
from simulator.workload.replay import Replay, Selection

MODELS = ("a", "b")


def line(ms: float, prompt: int, ids: list[int], output: int = 10) -> str:
    return json.dumps({"timestamp": ms, "input_length": prompt, "output_length": output, "hash_ids": ids})


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    lines = [
        line(0, 1000, [0, 1]),
        line(1000, 1536, [0, 2, 3]),
        line(2000, 1600, [0, 1, 4, 5]),
        "",
        line(4000, 600, [0, 6]),
    ]
    path.write_text("\n".join(lines))
    return path


def calls(replay: Replay) -> list[Call]:
    return [session.calls[0] for session in replay.sessions(1)]


def test_times_lengths_and_names_are_the_traces(trace: Path) -> None:
    replay = load_mooncake(trace, MODELS)
    assert [session.at_s for session in replay.sessions(1)] == [0.0, 1.0, 2.0, 4.0]
    assert [call.blocks for call in calls(replay)] == [(0, 1), (0, 2, 3), (0, 1, 4, 5), (0, 6)]
    assert [call.prompt_tokens for call in calls(replay)] == [1000, 1536, 1600, 600]
    assert {call.output_tokens for call in calls(replay)} == {10}
    assert (replay.block_tokens, replay.duration_s) == (512, 4.0)
    assert replay.description == "4 requests of trace.jsonl at 1x speed; 2 models by Zipf 1"


def test_speed_divides_the_times(trace: Path) -> None:
    replay = load_mooncake(trace, MODELS, Selection(speed=2.0))
    assert [session.at_s for session in replay.sessions(1)] == [0.0, 0.5, 1.0, 2.0]
    assert replay.duration_s == 2.0


def test_a_window_is_in_the_traces_own_time(trace: Path) -> None:
    replay = load_mooncake(trace, MODELS, Selection(speed=2.0, start_s=1.0, duration_s=2.0))
    assert [session.at_s for session in replay.sessions(1)] == [0.0, 0.5]
    assert replay.duration_s == 1.0


def test_turns_are_taken_within_a_prefix_group(trace: Path) -> None:
    replay = load_mooncake(trace, MODELS, assign="turns")
    # The first and the third share block 1 behind the common block 0.
    assert [session.name for session in replay.sessions(1)] == ["group-0", "group-1", "group-0", "group-2"]
    assert [call.model for call in calls(replay)] == ["a", "b", "b", "a"]


def test_without_common_blocks_all_are_one_group(trace: Path) -> None:
    replay = load_mooncake(trace, MODELS, assign="turns", common_blocks=0)
    assert [call.model for call in calls(replay)] == ["a", "b", "a", "b"]


def test_a_seed_decides_the_models_by_zipf(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(line(number, 600, [0, number]) for number in range(1, 2001)))
    replay = load_mooncake(path, MODELS, zipf=1.0)
    one, again, other = ([s.calls[0].model for s in replay.sessions(seed)] for seed in (1, 1, 2))
    assert one == again != other
    assert one.count("a") / 2000 == pytest.approx(2 / 3, abs=0.035)


def test_blocks_without_an_id_are_unlike_any_other(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join([line(0, 1100, [0, 9]), line(1, 1100, [0, 9])]))
    one, two = calls(load_mooncake(path, MODELS))
    assert one.blocks[:2] == two.blocks[:2] == (0, 9)
    assert len(one.blocks) == 3
    assert len({one.blocks[2], two.blocks[2], 0, 9}) == 4


def test_longer_requests_are_skipped_and_counted(trace: Path) -> None:
    replay = load_mooncake(trace, MODELS, Selection(max_model_len=1546))
    assert [call.prompt_tokens for call in calls(replay)] == [1000, 1536, 600]
    assert "(1 skipped: over 1546 tokens)" in replay.description


def test_longer_prompts_are_cut_to_whole_blocks(trace: Path) -> None:
    replay = load_mooncake(trace, MODELS, Selection(max_model_len=1200, too_long="cut"))
    assert [call.prompt_tokens for call in calls(replay)] == [1000, 1024, 1024, 600]
    assert calls(replay)[2].blocks == (0, 1)
    assert "(2 cut: over 1200 tokens)" in replay.description


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("{oops", "trace.jsonl:2: "),
        ('{"timestamp": 1, "input_length": 600, "hash_ids": [0]}', "trace.jsonl:2: output_length: "),
        (line(1, 0, []), "trace.jsonl:2: input_length: "),
        (line(-1, 600, [0, 1]), "trace.jsonl:2: timestamp: "),
        (line(1, 600, [0, 1, 2]), "trace.jsonl:2: hash_ids: 3 ids for 600 tokens, which fill 2 blocks"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, broken: str, says: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(f"{line(0, 600, [0, 1])}\n{broken}\n")
    with pytest.raises(SpecError) as raised:
        load_mooncake(path, MODELS)
    assert says in str(raised.value)


def test_a_missing_and_an_empty_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nothing\.jsonl: cannot be read"):
        load_mooncake(tmp_path / "nothing.jsonl", MODELS)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SpecError, match=r"empty\.jsonl: holds no request"):
        load_mooncake(tmp_path / "empty.jsonl", MODELS)


def test_what_leaves_nothing_is_said(trace: Path) -> None:
    with pytest.raises(SpecError, match="no request from 10 s to 20 s; the trace goes from 0 s to 4 s"):
        load_mooncake(trace, MODELS, Selection(start_s=10.0, duration_s=10.0))
    with pytest.raises(SpecError, match="all 4 requests are longer than max_model_len 100"):
        load_mooncake(trace, MODELS, Selection(max_model_len=100))
