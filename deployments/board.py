"""This process's view of all replicas.

In a module of its own, and to be reached through it (`board.BOARD`): Ray Serve pickles the module of a
request router by value (`RequestRouterConfig`), and `serve.ingress` the class that it makes. Whatever
these name as a global is copied; a module is not.
"""

from typing import Final

from router.histogram import Histogram
from router.telemetry import TelemetryBoard

BOARD: Final = TelemetryBoard()
"""Serve constructs the request routers, so none can be handed in. A spec's `prefix_blocks` sets the bound
of its index later: `BOARD.index.resize`."""

ROUTING: Final = Histogram()
"""What each choice of a replica took in this process, ms."""
