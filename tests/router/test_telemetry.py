"""The telemetry board: reports, corrected by what this router sent."""

from heliostat.wire import Load
from router.telemetry import TelemetryBoard


def load(replica: str, running: int, sequence: int) -> Load:
    return Load(replica, running, 0, 0, 0.0, sequence)


def test_a_replica_never_seen_is_a_candidate_without_load() -> None:
    (candidate,) = TelemetryBoard().candidates(["new"])
    assert (candidate.load, candidate.in_flight) == (None, 0)


def test_the_newest_report_counts_in_whatever_order_they_arrive() -> None:
    board = TelemetryBoard()
    for report in (load("a", 1, 5), load("a", 9, 7), load("a", 3, 6)):
        board.observe(report)
    (candidate,) = board.candidates(["a"])
    assert candidate.load == load("a", 9, 7)


def test_calls_count_until_they_end() -> None:
    board = TelemetryBoard()
    board.sent("1", "leg-1", "a", 100)
    board.sent("2", "leg-2", "a", 50)
    board.ended("1")
    (candidate,) = board.candidates(["a"])
    assert (candidate.in_flight, candidate.in_flight_tokens) == (1, 50)


def test_a_call_ends_once() -> None:
    board = TelemetryBoard()
    board.sent("1", "leg-1", "a", 100)
    for _ in range(3):
        board.ended("1")
    board.ended("never sent")
    (candidate,) = board.candidates(["a"])
    assert (candidate.in_flight, candidate.in_flight_tokens) == (0, 0)


def test_a_lost_replica_is_forgotten_once_its_calls_have_ended() -> None:
    board = TelemetryBoard()
    board.observe(load("lost", 1, 1))
    board.sent("1", "leg-1", "lost", 10)
    board.keep(["alive"])
    assert board.candidates(["lost"])[0].in_flight == 1
    board.ended("1")
    board.keep(["alive"])
    assert board.candidates(["lost"])[0].load is None


def test_a_leg_is_known_as_sent_until_nobody_asks_any_more() -> None:
    board = TelemetryBoard()
    assert not board.was_sent("leg-1")
    board.sent("1", "leg-1", "a", 10)
    board.ended("1")
    assert board.was_sent("leg-1")
    board.left("leg-1")
    assert not board.was_sent("leg-1")


def test_a_choice_counts_at_once_and_once() -> None:
    board = TelemetryBoard()
    board.chosen("1", "leg-1", "a", 10)
    assert in_flight(board) == {"a": (1, 10), "b": (0, 0)}
    board.sent("1", "leg-1", "b", 10)  # the first choice was full
    assert in_flight(board) == {"a": (0, 0), "b": (1, 10)}
    board.left("leg-1")
    assert in_flight(board) == {"a": (0, 0), "b": (1, 10)}
    board.ended("1")
    assert in_flight(board) == {"a": (0, 0), "b": (0, 0)}


def test_a_choice_that_came_to_nothing_is_over_when_its_leg_is_left() -> None:
    board = TelemetryBoard()
    board.chosen("1", "leg-1", "a", 10)
    board.left("leg-1")
    assert in_flight(board) == {"a": (0, 0), "b": (0, 0)}


def in_flight(board: TelemetryBoard) -> dict[str, tuple[int, int]]:
    return {c.replica: (c.in_flight, c.in_flight_tokens) for c in board.candidates(["a", "b"])}


def test_the_replica_that_has_a_prompt_is_told_to_the_policy() -> None:
    board = TelemetryBoard()
    board.holds("digest", "b")
    assert [c.cached_tokens for c in board.candidates(["a", "b"], "digest", 7)] == [0, 7]
    assert [c.cached_tokens for c in board.candidates(["a", "b"], "other", 7)] == [0, 0]
    assert [c.cached_tokens for c in board.candidates(["a", "b"])] == [0, 0]
