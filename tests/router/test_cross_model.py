"""Who brought a cached prefix, also when several models ask for it at the same time."""

from heliostat.wire import Load, PrefillRequest
from router.choice import Chooser
from router.cross_model import Bringers
from router.policy import POLICIES
from router.prefix_index import PrefixIndex
from router.telemetry import TelemetryBoard

PROMPT = tuple(range(100))
BLOCKS = PrefixIndex(0).hashes("kv", PROMPT)
REPLICAS = ("p0", "p1")


def bringers(max_blocks: int = 1000) -> Bringers:
    made = Bringers(max_blocks)
    made.follow(("math", "code", "chat"))
    return made


def arrived(brought: Bringers, model: str, cached_tokens: int, replica: str = "p0") -> int:
    return brought.arrived(replica, model, BLOCKS, len(PROMPT), cached_tokens)


def test_what_nobody_is_known_to_have_brought_is_nobodys() -> None:
    brought = bringers()
    assert arrived(brought, "code", 100) == 0
    assert len(brought) == 0


def test_the_one_that_computes_has_brought_it_also_when_it_answers_last() -> None:
    brought = bringers()
    brought.expected("p0", "math", BLOCKS, 0)
    brought.expected("p0", "code", BLOCKS, 96)
    assert arrived(brought, "code", 96) == 96
    assert arrived(brought, "math", 0) == 0
    assert arrived(brought, "math", 96) == 0
    assert arrived(brought, "chat", 100) == 100


def test_a_replica_that_is_taken_to_hold_a_prompt_gets_it_from_nobody() -> None:
    """Another router, or this one before its start, has brought it: perhaps for the same model."""
    brought = bringers()
    brought.expected("p0", "math", BLOCKS, 100)
    assert arrived(brought, "code", 100) == 0
    brought.expected("p0", "math", BLOCKS, 96)
    assert arrived(brought, "code", 100) == 4


def test_one_that_was_expected_to_compute_and_need_not_has_brought_nothing() -> None:
    """Through another router, whoever did may well be the model that asks next."""
    brought = bringers()
    brought.expected("p0", "math", BLOCKS, 0)
    assert arrived(brought, "math", 100) == 0
    assert arrived(brought, "code", 100) == 0


def test_whoever_computes_it_again_has_brought_it_from_then_on() -> None:
    brought = bringers()
    arrived(brought, "math", 0)
    assert arrived(brought, "code", 32) == 32
    assert arrived(brought, "code", 100) == 32
    assert arrived(brought, "math", 100) == 68


def test_a_part_of_a_block_counts_its_own_tokens() -> None:
    brought = bringers()
    arrived(brought, "math", 0)
    assert arrived(brought, "code", 48) == 48
    assert arrived(brought, "chat", 100) == 100


def test_replicas_are_told_apart() -> None:
    brought = bringers()
    arrived(brought, "math", 0)
    assert arrived(brought, "code", 96, replica="p1") == 0


def test_a_model_with_nobody_to_share_with_is_not_followed() -> None:
    brought = bringers()
    brought.expected("p0", "alone", BLOCKS, 0)
    assert len(brought) == 0


def test_its_memory_is_bounded_and_keeps_what_is_used() -> None:
    brought, names, system = bringers(max_blocks=8), PrefixIndex(0), tuple(range(64))
    brought.arrived("p0", "math", names.hashes("kv", system), 64, 0)
    for question in range(100):
        blocks = names.hashes("kv", (*system, *range(1000 * question, 1000 * question + 64)))
        brought.expected("p0", "code", blocks, 64)
        assert brought.arrived("p0", "code", blocks, 128, 64) == 64
        assert len(brought) <= 8


def test_a_choice_says_for_whom_a_prompt_will_be_computed() -> None:
    brought, board = bringers(), TelemetryBoard()
    for replica in REPLICAS:
        board.observe(Load(replica, 0, 0, 0, 0.0, 1, domain="kv"))
    chooser = Chooser(board, POLICIES["time_to_kv"].make(), lambda: 0.0, bringers=brought)
    chosen = [
        chooser.choose(REPLICAS, model, PrefillRequest(model, model, (*PROMPT[:96], number), session="s"))[0]
        for number, model in enumerate(("math", "code"))
    ]
    assert chosen[0] == chosen[1]
    # `code` is done first: the step that computed the shared blocks for `math` served it as well.
    blocks = PrefixIndex(0).hashes("kv", (*PROMPT[:96], 1))
    assert brought.arrived(REPLICAS[chosen[0]], "code", blocks, 97, 96) == 96
