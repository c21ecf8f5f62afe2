"""The telemetry board: reports, corrected by what this router sent."""

import math

import pytest
from msgspec.structs import replace

from heliostat.wire import Load, StepTime
from router import telemetry
from router.columns import STALE_S
from router.policy import Candidates
from router.telemetry import TelemetryBoard

AB = ("a", "b")


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def load(replica: str, running: int = 0, sequence: int = 1, **more: float) -> Load:
    base = Load(replica, running, 0, 0, 0.0, sequence, max_running=8, kv_tokens=1000, domain="d")
    return replace(base, **more)


def view(board: TelemetryBoard, names: tuple[str, ...] = AB) -> Candidates:
    return board.candidates(names)


def in_flight(board: TelemetryBoard) -> list[float]:
    return list(view(board).in_flight)


def test_a_replica_never_seen_is_a_candidate_of_unknown_age() -> None:
    candidates = view(TelemetryBoard(), ("new",))
    assert candidates.names == ("new",)
    assert (candidates.running[0], candidates.in_flight[0], candidates.age_s[0]) == (0, 0, math.inf)


def test_every_figure_of_a_report_arrives_in_its_column() -> None:
    board, clock = TelemetryBoard(clock := Clock()), clock
    report = Load("a", 2, 3, 50, 0.25, 1, 16, 700, 1000, 9.0, StepTime(1.0, 2.0, 3.0), 4000.0)
    board.observe(report)
    clock.now += 0.5
    row = view(board, ("b", "a"))
    assert (row.running[1], row.waiting[1], row.queued_tokens[1], row.max_running[1]) == (2, 3, 50, 16)
    assert (row.context_tokens[1], row.kv_tokens[1], row.free_kv_tokens[1]) == (700, 1000, 750)
    assert (row.step_base_ms[1], row.step_per_request_ms[1], row.step_per_token_ms[1]) == (1, 2, 3)
    assert (row.prefill_rate[1], row.age_s[1]) == (4.0, 0.5)


def test_the_newest_report_counts_in_whatever_order_they_arrive() -> None:
    board = TelemetryBoard()
    for running, sequence in ((1, 5), (7, 7), (3, 6)):
        board.observe(load("a", running, sequence))
    assert view(board).running[0] == 7


def test_a_call_that_the_report_cannot_know_is_added_to_it() -> None:
    board = TelemetryBoard()
    board.observe(load("a", 2, 1, queued_prompt_tokens=30, kv_use=0.5))
    board.chosen("1", "leg-1", "a", 100, 200)
    row = view(board)
    assert (row.running[0], row.queued_tokens[0], row.free_kv_tokens[0]) == (3, 130, 300)
    board.observe(load("a", 3, 2, queued_prompt_tokens=100, kv_use=0.6))
    row = view(board)
    assert (row.running[0], row.queued_tokens[0], row.free_kv_tokens[0]) == (3, 100, 400)


def test_a_report_that_does_not_know_our_calls_yet_cannot_hide_them() -> None:
    board = TelemetryBoard()
    for call in range(3):
        board.sent(str(call), f"leg-{call}", "a", 100, 200)
    board.observe(load("a", 0, 1))
    row = view(board)
    assert (row.running[0], row.queued_tokens[0], row.free_kv_tokens[0]) == (3, 300, 400)


@pytest.mark.parametrize("reports_before", [True, False])
def test_after_the_end_nothing_of_a_call_is_left(reports_before: bool) -> None:
    board = TelemetryBoard()
    board.chosen("1", "leg-1", "a", 100, 200)
    if reports_before:
        board.observe(load("a", 0, 1))
    board.ended("1")
    if not reports_before:
        board.observe(load("a", 0, 1))
    row = view(board)
    assert (row.running[0], row.queued_tokens[0], row.free_kv_tokens[0]) == (0, 0, 1000)


def test_more_requests_than_slots_wait() -> None:
    board = TelemetryBoard()
    board.observe(load("a", 8, 1))
    board.chosen("1", "leg-1", "a", 10)
    assert (view(board).running[0], view(board).waiting[0]) == (8, 1)


def test_a_call_ends_once() -> None:
    board = TelemetryBoard()
    board.sent("1", "leg-1", "a", 100)
    for _ in range(3):
        board.ended("1")
    board.ended("never sent")
    assert in_flight(board) == [0, 0]


def test_a_choice_counts_at_once_and_once() -> None:
    board = TelemetryBoard()
    board.chosen("1", "leg-1", "a", 10)
    board.sent("1", "leg-1", "a", 10)
    assert in_flight(board) == [1, 0]
    board.sent("1", "leg-1", "b", 10)  # the first choice was full
    assert in_flight(board) == [0, 1]
    board.left("leg-1")
    assert in_flight(board) == [0, 1]
    board.ended("1")
    assert in_flight(board) == [0, 0]


def test_what_was_booked_with_the_choice_holds_when_it_is_taken() -> None:
    """The choice knew what is cached there; that the call was taken says nothing of it."""
    board = TelemetryBoard()
    board.chosen("1", "leg-1", "a", 10)
    board.sent("1", "leg-1", "a", 1000)
    assert view(board).queued_tokens[0] == 10


def test_a_choice_that_came_to_nothing_is_over_when_its_leg_is_left() -> None:
    board = TelemetryBoard()
    board.chosen("1", "leg-1", "a", 10)
    board.left("leg-1")
    assert in_flight(board) == [0, 0]


def test_what_serve_says_late_books_nothing() -> None:
    """An answer may overtake the news of its call, and a cancelled call be placed once more."""
    board = TelemetryBoard()
    board.chosen("1", "leg-1", "a", 10)
    board.ended("1")
    board.sent("1", "leg-1", "a", 10)
    assert in_flight(board) == [0, 0]
    board.chosen("2", "leg-2", "a", 10)
    board.left("leg-2")
    board.chosen("2", "leg-2", "b", 10)
    assert in_flight(board) == [0, 0]
    board.chosen("1", "leg-1", "b", 10)
    assert in_flight(board) == [0, 1], "tried again under its old id"


def test_a_leg_is_known_as_sent_until_nobody_asks_any_more_and_its_replica_after_that() -> None:
    board = TelemetryBoard()
    assert not board.was_sent("leg-1")
    board.sent("1", "leg-1", "a", 10)
    board.ended("1")
    assert board.was_sent("leg-1")
    board.left("leg-1")
    assert not board.was_sent("leg-1")
    assert (board.replica_of("leg-1"), board.replica_of("leg-2")) == ("a", "")


def test_a_replica_that_left_is_forgotten_once_its_calls_have_ended() -> None:
    board = TelemetryBoard()
    board.observe(load("a", 3, 1))
    board.sent("1", "leg-1", "a", 10)
    board.keep(["b"])
    assert (view(board).in_flight[0], view(board).running[0]) == (1, 4)
    board.ended("1")
    board.keep(["b"])
    assert view(board).running[0] == 0


def test_a_replica_that_missed_a_beat_comes_back_to_its_prefixes() -> None:
    board, tokens = TelemetryBoard(), tuple(range(64))
    board.observe(load("a"))
    board.holds("a", board.hashes(AB, tokens))
    board.keep([])
    board.observe(load("a", 0, 1))
    assert board.candidates(AB, board.hashes(AB, tokens), 64).cached_tokens.tolist() == [64, 0]


def test_what_a_lost_replica_held_is_lost_and_it_rests_but_its_calls_count_on() -> None:
    clock = Clock()
    board, tokens = TelemetryBoard(clock), tuple(range(64))
    board.observe(load("a"))
    board.sent("1", "leg-1", "a", 10)
    board.holds("a", board.hashes(AB, tokens))
    board.failed("a", lost=True)
    candidates = board.candidates(AB, board.hashes(AB, tokens), 64)
    assert candidates.cached_tokens.tolist() == [0, 0]
    assert candidates.resting.tolist() == [True, False]
    assert in_flight(board) == [1, 0]
    board.ended("1")
    assert in_flight(board) == [0, 0]
    board.keep(["b"])
    assert view(board).resting[0], "until it has rested, a name that Serve still knows is not as new"


def test_a_rest_ends_with_one_request_and_with_success() -> None:
    clock = Clock()
    board = TelemetryBoard(clock)
    for _ in range(3):
        board.failed("a")
    assert view(board).resting.tolist() == [True, False]
    clock.now += 1.0
    assert not view(board).resting[0]
    board.chosen("1", "leg-1", "a", 1)
    assert view(board).resting[0]
    board.succeeded("a")
    assert not view(board).resting[0]


def test_successes_between_failures_keep_the_circuit_closed() -> None:
    board = TelemetryBoard()
    for _ in range(5):
        board.failed("a")
        board.failed("a")
        board.succeeded("a")
    assert not view(board).resting[0]


def test_the_whole_prompt_counts_as_cached_when_it_comes_again_and_whole_blocks_otherwise() -> None:
    board, prompt = TelemetryBoard(), tuple(range(80))
    board.observe(load("b"))
    board.holds("b", board.hashes(AB, prompt))
    longer = (*prompt, 7)
    assert board.candidates(AB, board.hashes(AB, prompt), 80).cached_tokens.tolist() == [0, 80]
    assert board.candidates(AB, board.hashes(AB, longer), 81).cached_tokens.tolist() == [0, 64]


def test_engines_correct_what_the_index_believes() -> None:
    board, prompt = TelemetryBoard(), tuple(range(64))
    board.observe(load("a"))
    hashes = board.hashes(AB, prompt)
    board.holds("a", hashes)
    board.kv_changed("a", (), hashes[1:])
    board.kv_changed("b", hashes, ())
    assert board.candidates(AB, hashes, 64).cached_tokens.tolist() == [32, 64]


def test_without_a_domain_there_is_no_affinity() -> None:
    assert TelemetryBoard().hashes(AB, tuple(range(64))) == ()


def test_a_stale_reading_is_full_for_admission_and_good_enough_to_choose() -> None:
    clock = Clock()
    board = TelemetryBoard(clock)
    board.observe(load("a", 2, 1))
    clock.now += STALE_S
    board.observe(load("b", 5, 1))
    assert board.figures(AB).slots == 16
    clock.now += 0.1
    figures = board.figures(AB)
    assert (figures.replicas, figures.fresh, figures.slots, figures.running) == (2, 1, 8, 5)
    assert view(board).running.tolist() == [2, 5]
    clock.now += STALE_S
    figures = board.figures(AB)
    assert (figures.fresh, figures.slots, figures.free_kv_tokens) == (0, 0, 0)
    assert figures.prefill_wait_ms == math.inf


def test_admission_sees_the_shortest_wait_and_all_headroom() -> None:
    board = TelemetryBoard()
    board.observe(load("a", 1, 1, queued_prompt_tokens=900, prefill_tokens_per_s=1000.0, kv_use=0.5))
    board.observe(load("b", 1, 1, queued_prompt_tokens=400, prefill_tokens_per_s=2000.0))
    figures = board.figures(AB)
    assert (figures.prefill_wait_ms, figures.free_kv_tokens) == (200.0, 1500.0)


def test_when_row_numbers_run_out_only_the_prefixes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MAX_ROWS", 32)
    board = TelemetryBoard()
    board.observe(load("a", 5, 1))
    board.sent("1", "leg-1", "a", 10)
    for generation in range(100):
        name = f"short-lived-{generation}"
        board.observe(load(name))
        board.holds(name, board.hashes(AB, tuple(range(64))))
        board.keep(["a"])
    assert (view(board).running[0], view(board).in_flight[0]) == (6, 1)
    board.ended("1")
    assert view(board).in_flight[0] == 0
    assert board.candidates(AB, board.hashes(AB, tuple(range(64))), 64).cached_tokens.tolist() == [0, 0]


def test_more_replicas_than_the_table_has_room_for() -> None:
    board = TelemetryBoard()
    names = tuple(f"r{i}" for i in range(5000))
    for i, name in enumerate(names):
        board.observe(load(name, i, 1))
    candidates = view(board, names)
    assert (candidates.running + candidates.waiting).tolist() == list(range(5000))
