"""Headers that are sent: names do not care about case, and values are what a line of HTTP can hold."""

import re
from collections.abc import Mapping

from heliostat.errors import InvalidRequestError

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2."""


def merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Later parts win. Raises InvalidRequestError for what cannot be a header."""
    return {_name(name): _value(name, value) for part in parts for name, value in part.items()}


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(f"{name!r} cannot be a header's name; write it as in x-request-id")
    return name.lower()


def _value(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(f"the header {name} is a {type(value).__name__}; give it text")
    # Only the character is shown: the value may be a key.
    if wrong := next((letter for letter in value if not " " <= letter <= "~"), ""):
        raise InvalidRequestError(
            f"the header {name} holds {wrong!r}; give it printable ASCII, for example with urllib.parse.quote"
        )
    return value
