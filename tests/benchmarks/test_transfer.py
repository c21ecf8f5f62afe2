"""Facts about the geometry, the scattered blocks and the metrics of the transfer benchmark."""

from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.report import RESULTS
from benchmarks.transfer import ROUNDS, TOKENS, output, parser, samples_per_round
from benchmarks.transfer_figures import Run, Sample, summarize
from benchmarks.transfer_kv import LONGEST_RUN, QWEN3_8B, EngineMemory, Geometry, pool_blocks, scattered
from benchmarks.transfer_sides import Setting

SMALL = Geometry(num_layers=3, num_kv_heads=2, head_size=8, block_tokens=4)


def setting(transport: str, tokens: int) -> Setting:
    return Setting(transport, tokens, Path("nowhere"))


def run(*, put_s: float = 0.4, get_s: float = 0.2, raw_s: float = 0.19, copy_s: float = 0.1) -> Run:
    return Run(1.0, (Sample(put_s, get_s, raw_s, copy_s),) * 3)


def test_the_geometry_is_that_of_qwen3_8b() -> None:
    assert (QWEN3_8B.token_bytes, QWEN3_8B.block_bytes) == (147_456, 32 * 147_456)


@pytest.mark.parametrize(("tokens", "blocks"), [(2, 1), (32, 1), (33, 1), (34, 2), (2048, 64), (8192, 256)])
def test_a_handoff_carries_the_blocks_of_all_tokens_but_the_last(tokens: int, blocks: int) -> None:
    assert QWEN3_8B.num_blocks(tokens) == blocks


@pytest.mark.parametrize("num_blocks", [1, 16, 256])
def test_scattered_blocks_are_distinct_and_in_the_pool(num_blocks: int) -> None:
    blocks = scattered(num_blocks, seed=1)
    assert len(blocks) == len(set(blocks)) == num_blocks
    assert set(blocks) <= set(range(pool_blocks(num_blocks)))


def test_blocks_are_scattered_in_runs_that_differ_between_seeds() -> None:
    blocks = scattered(256, seed=1)
    jumps = sum(right != left + 1 for left, right in pairwise(blocks))
    assert 256 / LONGEST_RUN - 1 <= jumps < 128
    assert blocks == scattered(256, seed=1) != scattered(256, seed=2)


def test_equal_kv_in_other_blocks_has_the_same_checksum() -> None:
    owner, reader = EngineMemory(SMALL, 40, seed=1), EngineMemory(SMALL, 40, seed=2)
    owner.fill()
    assert reader.checksum() != owner.checksum()
    for ours, theirs in zip(owner.views(), reader.views(), strict=True):
        kv, at = b"".join(ours), 0
        for view in theirs:
            view[:] = kv[at : at + view.nbytes]
            at += view.nbytes
    assert reader.checksum() == owner.checksum()
    assert reader.block_ids != owner.block_ids


def test_every_block_of_filled_memory_differs() -> None:
    memory = EngineMemory(SMALL, 8, seed=1)
    memory.fill()
    size = SMALL.block_bytes // SMALL.num_layers
    raw = b"".join(memory.regions)
    blocks = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert len(set(blocks)) == len(blocks) == SMALL.num_layers * pool_blocks(8)


def test_a_header_describes_the_blocks() -> None:
    memory = EngineMemory(SMALL, 8, seed=1)
    header = memory.header("d1")
    assert header.check_blocks(0, memory.views()) == header.num_blocks == 8


def test_bandwidth_is_beside_the_raw_path_and_the_plain_copy() -> None:
    metrics = summarize(setting("shm", 8192), run())
    get, put = metrics["shm_8192_get_bandwidth"], metrics["shm_8192_put_bandwidth"]
    assert (get.value, get.peer) == (5.625, 5.9211)  # of 1.125 GiB
    assert (put.value, put.peer) == (2.8125, 11.25)


def test_shm_is_held_against_a_copy_and_nixl_against_raw_nixl() -> None:
    shm, nixl = summarize(setting("shm", 2048), run()), summarize(setting("nixl", 2048), run())
    assert (shm["shm_2048_get_over_copy"].value, shm["shm_2048_get_over_copy"].met) == (0.5, True)
    assert (nixl["nixl_2048_get_over_raw"].value, nixl["nixl_2048_get_over_raw"].met) == (0.95, True)
    assert nixl["nixl_2048_get_over_copy"].goal is shm["shm_2048_get_over_raw"].goal is None


def test_a_missed_goal_stays_in_the_metrics() -> None:
    metrics = summarize(setting("nixl", 2048), run(get_s=0.4))
    missed = {key for key, metric in metrics.items() if metric.met is False}
    assert missed == {"nixl_2048_get_over_raw", "nixl_2048_overhead"}


def test_overhead_is_what_a_get_takes_beyond_the_raw_path() -> None:
    metrics = summarize(setting("nccl", 32), run(get_s=0.004, raw_s=0.0015))
    assert (metrics["nccl_32_overhead"].value, metrics["nccl_32_overhead"].met) == (2.5, True)


def test_short_prompts_have_no_goal_for_bandwidth() -> None:
    assert not [key for key in summarize(setting("shm", 512), run()) if "_over_" in key]


def test_short_prompts_are_sampled_more_often() -> None:
    assert [samples_per_round(tokens) for tokens in TOKENS] == [8, 3, 3, 3]


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        ([], RESULTS / "transfer.json"),
        (["--rounds", str(ROUNDS)], RESULTS / "transfer.json"),
        (["--rounds", "1"], None),
        (["--transports", "shm"], None),
        (["--tokens", "32", "--out", "mine.json"], Path("mine.json")),
    ],
)
def test_only_a_run_with_default_settings_replaces_the_committed_result(
    argv: list[str], path: Path | None
) -> None:
    assert output(parser().parse_args(argv)) == path


@pytest.mark.parametrize(
    "argv", [["--rounds", "0"], ["--tokens", "1"], ["--tokens", "x"], ["--transports", "fax"]]
)
def test_settings_that_measure_nothing_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(argv)


def test_the_store_of_a_setting_has_room_for_two_prompts_and_not_for_three() -> None:
    room = setting("shm", 2048).transfer.memory_gib * 2**30
    assert 2 * setting("shm", 2048).num_bytes + 2 * 4096 < room < 3 * setting("shm", 2048).num_bytes
