"""What a client may say in headers, and what is refused."""

import pytest

from heliostat.errors import InvalidRequestError
from router.frontend.hints import NO_HINTS, Hints, read_hints


def test_hints_are_read() -> None:
    headers = {
        "x-heliostat-session": "ctx",
        "x-heliostat-deadline": "2.5",
        "x-heliostat-priority": "-3",
        "x-heliostat-expected-tokens": "40",
        "x-heliostat-reuse": "soon",
    }
    assert read_hints(headers) == Hints("ctx", 2.5, -3, 40, True)
    assert read_hints({"x-heliostat-other": "x"}) == NO_HINTS
    assert read_hints({"x-heliostat-deadline": "0"}).deadline_s == 0


@pytest.mark.parametrize(
    ("header", "value", "allowed"),
    [
        ("x-heliostat-deadline", "soon", "seconds, 0 or more"),
        ("x-heliostat-deadline", "nan", "seconds, 0 or more"),
        ("x-heliostat-deadline", "inf", "seconds, 0 or more"),
        ("x-heliostat-deadline", "-1", "seconds, 0 or more"),
        ("x-heliostat-deadline", "", "seconds, 0 or more"),
        ("x-heliostat-priority", "high", "an integer from"),
        ("x-heliostat-priority", "1.5", "an integer from"),
        ("x-heliostat-priority", "1_000", "an integer from"),
        ("x-heliostat-priority", "٣", "an integer from"),
        ("x-heliostat-priority", str(2**63), "an integer from"),
        ("x-heliostat-expected-tokens", "0", "an integer from 1 to"),
        ("x-heliostat-expected-tokens", "-4", "an integer from 1 to"),
        ("x-heliostat-expected-tokens", "many", "an integer from 1 to"),
        ("x-heliostat-expected-tokens", "9" * 5000, "an integer from 1 to"),
        ("x-heliostat-reuse", "later", "it can be `soon`"),
        ("x-heliostat-reuse", "", "it can be `soon`"),
    ],
)
def test_a_malformed_hint_is_named_with_its_value_and_what_is_allowed(
    header: str, value: str, allowed: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read_hints({header: value})
    assert str(refused.value).startswith(f"{header} is {value!r}; ")
    assert allowed in str(refused.value)
