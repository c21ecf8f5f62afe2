"""What a request must keep to count as good, written as people write it: `ttft=2s,tpot=25ms`."""

import re

from pydantic import BaseModel, ConfigDict, Field

from heliostat.errors import HeliostatError
from heliostat.findings import did_you_mean

_EXAMPLE = "write it as ttft=2s,tpot=25ms"
_KEYS = ("ttft", "tpot")
_MS = {"ms": 1.0, "s": 1000.0}
_VALUE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)", re.ASCII)


class Slo(BaseModel):
    """A service level objective: limits of one request's time to first token and mean time per output token.

    Both hold at once, as goodput is defined in DistServe (Zhong et al. 2024, section 2).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    ttft_ms: float = Field(gt=0)
    tpot_ms: float = Field(gt=0)

    def __str__(self) -> str:
        return f"TTFT {self.ttft_ms / 1000:g} s, TPOT {self.tpot_ms:g} ms"


def parse_slo(text: str) -> Slo:
    """The SLO that `text` says; both keys, in any order, each with `s` or `ms`.

    Raises HeliostatError that says what is wrong and how to write it.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.strip().lower().partition("="))
        if not equals:
            raise HeliostatError(f"SLO `{text}`: `{part.strip()}` is not KEY=TIME; {_EXAMPLE}")
        if key not in _KEYS:
            raise HeliostatError(
                f"SLO `{text}`: unknown key `{key}`; {did_you_mean(key, _KEYS, 'known keys')}"
            )
        if key in found:
            raise HeliostatError(f"SLO `{text}`: {key} stands there twice; {_EXAMPLE}")
        found[key] = _milliseconds(text, key, value)
    for key in _KEYS:
        if key not in found:
            raise HeliostatError(f"SLO `{text}`: {key} is missing; {_EXAMPLE}")
    return Slo(ttft_ms=found["ttft"], tpot_ms=found["tpot"])


def _milliseconds(text: str, key: str, value: str) -> float:
    match = _VALUE.fullmatch(value)
    if match is None:
        raise HeliostatError(f"SLO `{text}`: {key} `{value}` is not a time; {_EXAMPLE}")
    number, unit = match.groups()
    if unit not in _MS:
        wrong = f"has the unit `{unit}`" if unit else "has no unit"
        raise HeliostatError(f"SLO `{text}`: {key} {wrong}; use s or ms, as in {key}={number}ms")
    if float(number) == 0:
        raise HeliostatError(f"SLO `{text}`: {key} is zero, which no request can keep; give it time")
    return float(number) * _MS[unit]
