"""Numbers and JSON on a command line, as argparse takes them: what is wrong is said in words."""

import argparse
import json
import math


def natural(text: str) -> int:
    """0 or more, in digits."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)


def count(text: str) -> int:
    """1 or more, in digits."""
    if (number := natural(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def not_negative(text: str) -> float:
    """A finite number, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    if (value := not_negative(text)) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, neither of them."""
    if not 0 < (value := not_negative(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def json_object(text: str) -> dict[str, object]:
    """A JSON object; NaN is none of JSON's numbers."""
    try:
        found: object = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text} is no JSON object; write '{{\"key\": value}}'")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number there")
