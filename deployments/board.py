"""This process's view of all replicas.

In a module of its own, and to be reached through it (`board.BOARD`): Ray Serve pickles the module of a
request router by value (`RequestRouterConfig`), and `serve.ingress` the class that it makes. Whatever
these name as a global is copied; a module is not.
"""

import random
from typing import Final

from heliostat.spec import Spec
from heliostat.wire import Role
from router.choice import Chooser
from router.histogram import Histogram
from router.policy import DEFAULTS, POLICIES
from router.route_notes import RouteNotes
from router.telemetry import TelemetryBoard

BOARD: Final = TelemetryBoard()
"""Serve constructs the request routers, so none can be handed in. A spec's `prefix_blocks` sets the bound
of its index later: `BOARD.index.resize`."""

ROUTING: Final = Histogram()
"""What each choice of a replica took in this process, ms."""

ROUTES: Final = RouteNotes()
"""How legs that are traced found their replicas."""

SPEC: Spec | None = None
"""What the router of this process serves; its pools' policies are read here, so that a pool's replicas are
left alone when only the choice among them changes."""


def chooser(role: Role, pool: str) -> Chooser:
    """A fresh one for that pool, as the spec wants it; by default before there is a spec."""
    section = SPEC.pools().get((role, pool)) if SPEC else None
    policy = (section.policy if section else None) or DEFAULTS[role]
    return Chooser(
        BOARD,
        POLICIES[policy].make(),
        random.random,
        tpot_target_ms=(section.tpot_ms if section else None) or 0.0,
        routers=SPEC.router.replicas if SPEC else 1,
        notes=ROUTES,
    )
