"""Pydantic's findings about a JSON file in one line for people."""

from pydantic import ValidationError


def complaints(error: ValidationError, at_most: int = 5) -> str:
    """Each key with what is wrong with it, as in `` `samples.decode.0.step_ms`: … ``; at most so many."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"`{'.'.join(map(str, each['loc']))}`: {each['msg']}" if each["loc"] else each["msg"]
        for each in found
    ]
    more = [f"and {len(lines) - at_most} more"] if len(lines) > at_most else []
    return "; ".join(lines[:at_most] + more)
