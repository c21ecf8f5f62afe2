"""What is noted of a traced leg's way to its replica."""

from heliostat.wire import PrefillRequest
from router.choice import Chooser
from router.policy import POLICIES
from router.route_notes import MAX_NOTES, RouteNotes
from router.telemetry import TelemetryBoard

NAMES = ("a", "b")


def leg(leg_id: str, flags: str) -> PrefillRequest:
    traceparent = f"00-{1:032x}-{2:016x}-{flags}" if flags else ""
    return PrefillRequest(leg_id, "m", (1, 2, 3), traceparent=traceparent)


def chooser(notes: RouteNotes) -> Chooser:
    return Chooser(TelemetryBoard(), POLICIES["least_load"].make(), lambda: 0.0, notes=notes)


def test_a_sampled_leg_is_noted_with_the_last_choice_and_its_reason() -> None:
    notes = RouteNotes(clock=iter([1.0, 2.0]).__next__)
    choose = chooser(notes)
    choose.choose(NAMES, "call", leg("leg", "01"))
    best = choose.choose(NAMES, "call", leg("leg", "01"))[0]
    note = notes.take("leg")
    assert note is not None
    assert (note.replica, note.candidates, note.choices) == (NAMES[best], 2, 2)
    assert note.chosen_s == 2.0
    assert note.reason
    assert notes.take("leg") is None, "told once"


def test_other_legs_are_not_noted() -> None:
    notes = RouteNotes()
    for flags in ("", "00"):
        chooser(notes).choose(NAMES, "call", leg("leg", flags))
        assert notes.take("leg") is None


def test_notes_that_nobody_takes_do_not_grow() -> None:
    notes = RouteNotes()
    for number in range(MAX_NOTES + 10):
        notes.chosen(str(number), "a", 1, 0.0, "")
    assert notes.take("9") is None
    assert notes.take("10") is not None
