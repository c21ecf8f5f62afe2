"""The prefix index: depths by row, bounded, the same in every process."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np

from router.prefix_index import PrefixIndex

ROOT = Path(__file__).parents[2]


def tokens(count: int, seed: int = 0) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(150_000) for _ in range(count))


def depths(index: PrefixIndex, hashes: tuple[int, ...], *rows: int) -> list[float]:
    return index.depths(hashes, np.array(rows, np.intp)).tolist()


def test_hashes_are_the_same_in_every_process() -> None:
    script = (
        "from router.prefix_index import PrefixIndex\n"
        "print(PrefixIndex(1).hashes('domain', tuple(range(100))))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] == f"{PrefixIndex(9).hashes('domain', tuple(range(100)))}\n".encode()


def test_prompts_share_the_hashes_of_their_common_blocks_and_no_others() -> None:
    index, prompt = PrefixIndex(1000), tokens(128)
    other = (*prompt[:70], 1, *prompt[71:])
    ours, theirs = index.hashes("d", prompt), index.hashes("d", other)
    assert ours[:2] == theirs[:2]
    assert not set(ours[2:]) & set(theirs[2:]), "what comes after a difference differs, too"


def test_domains_share_nothing() -> None:
    index = PrefixIndex(1000)
    assert not set(index.hashes("d", tokens(96))) & set(index.hashes("e", tokens(96)))


def test_the_rest_of_a_prompt_has_a_hash_of_its_own() -> None:
    index, prompt = PrefixIndex(1000), tokens(100)
    assert len(index.hashes("d", prompt)) == 4
    assert index.hashes("d", prompt)[:3] == index.hashes("d", prompt[:96])
    assert index.hashes("d", ()) == ()


def test_depth_ends_at_the_first_block_that_is_missing() -> None:
    index = PrefixIndex(1000)
    hashes = index.hashes("d", tokens(320))
    index.add(0, hashes)
    index.add(1, hashes[:4])
    index.add(2, hashes[1:])
    assert depths(index, hashes, 0, 1, 2, 3, 900) == [10, 4, 0, 0, 0]
    index.removed(0, hashes[6:7])
    assert depths(index, hashes, 0) == [6]


def test_depths_equal_a_plain_count() -> None:
    draw, index = random.Random(1), PrefixIndex(10_000)
    chains = [index.hashes("d", tokens(64, seed=1) + tokens(640, seed)) for seed in range(4)]
    held: dict[int, set[int]] = {row: set() for row in range(300)}
    for _ in range(2000):
        row, chain, depth = draw.randrange(300), draw.choice(chains), draw.randrange(1, 23)
        if draw.random() < 0.3:
            index.removed(row, chain[depth:])
            held[row] -= set(chain[depth:])
        else:
            index.add(row, chain[:depth])
            held[row] |= set(chain[:depth])
    for chain in chains:
        expected = []
        for row in range(300):
            missing = (i for i, block in enumerate(chain) if block not in held[row])
            expected.append(next(missing, len(chain)))
        assert depths(index, chain, *range(300)) == expected


def test_the_least_recently_used_blocks_go_first_and_ends_before_beginnings() -> None:
    index = PrefixIndex(10)
    first, second, third = (index.hashes("d", tokens(160, seed)) for seed in range(3))
    index.add(0, first)
    index.add(0, second)
    index.add(1, first)  # used again
    index.add(0, third[:3])
    assert len(index) == 10
    assert depths(index, first, 0, 1) == [5, 5]
    assert depths(index, second, 0) == [2]


def test_a_smaller_bound_drops_what_is_too_much() -> None:
    index = PrefixIndex(10)
    hashes = index.hashes("d", tokens(320))
    index.add(0, hashes)
    index.resize(4)
    assert (len(index), depths(index, hashes, 0)) == (4, [4])
    index.resize(0)
    index.add(0, hashes)
    assert len(index) == 0


def test_a_forgotten_row_holds_nothing_and_clearing_begins_anew() -> None:
    index = PrefixIndex(100)
    hashes = index.hashes("d", tokens(64))
    index.add(3, hashes)
    index.add(4, hashes)
    index.forget(3)
    assert depths(index, hashes, 3, 4) == [0, 2]
    index.clear()
    index.add(3, hashes)
    assert depths(index, hashes, 3, 4) == [2, 0]


def test_blocks_that_nobody_holds_leave_the_index() -> None:
    index = PrefixIndex(100)
    hashes = index.hashes("d", tokens(64))
    index.add(0, hashes)
    index.removed(0, hashes)
    assert len(index) == 0
