"""Routers that compute: each is one process, and does one thing at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from heliostat.spec import Family, Model, Pool, Spec
from simulator.profile import Hardware
from simulator.router import Options
from simulator.run import simulate
from simulator.topology import arrange
from simulator.workload.base import Call, Session

FRONT_MS = 50.0


@dataclass(frozen=True)
class AtOnce:
    """Four requests of one token each, at the same moment."""

    description: str = "four at once"
    models: tuple[str, ...] = ("m",)
    block_tokens: int = 16
    duration_s: float = 5.0

    def sessions(self, seed: int) -> Iterator[Session]:
        for number in range(4):
            yield Session(f"{number}", 0.1, (Call("m", 2, 1, (number,)),))


def first_tokens_s(options: Options) -> list[float]:
    pool = Pool(weights="m", engine="sim")
    spec = Spec(
        family=Family(base="m"),
        prefill={"p": pool},
        decode={"d": pool},
        models={"m": Model(prefill="p", decode="d")},
    )
    outcome = simulate(arrange(spec, "spec"), AtOnce(), Hardware(), directory=Path(), options=options)
    return sorted(first - 0.1 for first in outcome.requests.first_s)


@pytest.mark.parametrize("cores", [None, 8.0])
def test_one_router_takes_one_request_after_the_other(cores: float | None) -> None:
    alone = first_tokens_s(Options(host_cores=cores))
    waited = first_tokens_s(Options(front_ms=FRONT_MS, host_cores=cores))
    delays = [late - early for late, early in zip(waited, alone, strict=True)]
    assert delays == pytest.approx([FRONT_MS / 1e3 * (place + 1) for place in range(4)], abs=2e-3)


def test_two_routers_share_them() -> None:
    waited = first_tokens_s(Options(front_ms=FRONT_MS, routers=2))
    assert waited[3] - waited[1] == pytest.approx(FRONT_MS / 1e3, abs=2e-3)
    assert waited[1] - waited[0] == pytest.approx(0.0, abs=2e-3)


def test_a_slow_host_makes_the_router_slower() -> None:
    assert first_tokens_s(Options(front_ms=FRONT_MS, host_cores=0.5))[0] > 2 * FRONT_MS / 1e3
